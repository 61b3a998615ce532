"""The cost model: formulas, what is learned of their error, and how it is forgotten."""

from __future__ import annotations

from math import exp, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.contract.plan import Arm
from anabranch.contract.rows import PlanSum
from anabranch.learn.cost_model import CLIP, CostModel, CostPriors, load_level

ABC = ("a", "b", "c")
LATENCIES = [10.0, 20.0, 30.0]


def plan(
    arm: Arm,
    ratio: float,
    *,
    layers: tuple[str, ...] = ABC,
    bucket: int = 0,
    count: int = 1,
    load: int = 0,
    error: float = 0.0,
) -> PlanSum:
    """Plans that took `ratio` times what the formula says."""
    residual = round(1_000 * log(ratio)) * count
    return PlanSum(
        bucket, "t", arm, layers, load, False, count, residual, round(1_000 * error) * count
    )


def estimate(
    model: CostModel, arm: Arm, layers: tuple[str, ...] = ABC, queue_ms: float = 0
) -> float:
    return model.part("io", arm, layers, LATENCIES[: len(layers)], queue_ms, False).estimated_ms


def test_sequential_is_the_sum() -> None:
    assert CostPriors().cost_ms("sequential", LATENCIES, 0) == 61


def test_parallel_is_the_longest() -> None:
    assert CostPriors().cost_ms("parallel", LATENCIES, 0) == 33


def test_distributed_is_most_of_the_longest_and_a_hop() -> None:
    assert CostPriors().cost_ms("distributed", LATENCIES, 0) == pytest.approx(39)


def test_a_queue_is_waited_for_once_or_once_a_layer() -> None:
    priors = CostPriors()
    waits = {
        arm: priors.cost_ms(arm, LATENCIES, 7) - priors.cost_ms(arm, LATENCIES, 0)
        for arm in ("sequential", "parallel", "distributed")
    }
    assert waits == pytest.approx({"sequential": 21, "parallel": 7, "distributed": 7})


def test_without_experience_the_estimate_is_the_formula() -> None:
    part = CostModel().part("io", "parallel", ABC, LATENCIES, 0, False)
    assert part.estimated_ms == part.formula_ms == 33


def test_an_arm_that_takes_twice_as_long_is_expected_to() -> None:
    model = CostModel()
    model.fold_plan(plan("parallel", 2.0, count=200))
    assert estimate(model, "parallel") == pytest.approx(66, rel=0.03)


def test_what_is_learned_of_one_layer_set_is_a_hint_for_others() -> None:
    model = CostModel()
    model.fold_plan(plan("parallel", 2.0, count=200))
    assert estimate(model, "parallel", ("a", "b")) == pytest.approx(46, rel=0.03)


def test_a_layer_set_of_its_own_experience_overrules_the_arms() -> None:
    model = CostModel()
    model.fold_plan(plan("parallel", 4.0, count=200))
    model.fold_plan(plan("parallel", 1.0, layers=("a", "b"), count=200))
    assert estimate(model, "parallel", ("a", "b")) == pytest.approx(23, rel=0.1)


def test_loads_are_learned_apart() -> None:
    model = CostModel()
    model.fold_plan(plan("parallel", 4.0, load=3, count=200))
    model.fold_plan(plan("parallel", 1.0, load=0, count=200))
    assert estimate(model, "parallel") == pytest.approx(33, rel=0.1)
    busy = model.part("io", "parallel", ABC, LATENCIES, 200, False)
    assert busy.load == 3
    assert busy.estimated_ms == pytest.approx(4 * busy.formula_ms, rel=0.1)


def test_what_is_learned_of_an_arm_says_nothing_of_another() -> None:
    model = CostModel()
    model.fold_plan(plan("parallel", 4.0, count=200))
    assert estimate(model, "sequential") == 61


def test_one_outlier_is_clipped() -> None:
    assert exp(CLIP) < 13


def test_an_arm_not_taken_drifts_back_to_what_it_shows_elsewhere() -> None:
    model = CostModel()
    model.fold_plan(plan("distributed", 1.0, layers=("x",), bucket=0, count=500))
    model.fold_plan(plan("distributed", 5.0, bucket=0, count=20))
    before = model.residual("distributed", ABC, 0)
    for bucket in range(1, 31):
        model.fold_plan(plan("parallel", 1.0, bucket=bucket, count=10))
    assert before > 1.0
    assert model.residual("distributed", ABC, 0) < 0.2


def test_only_updates_of_the_same_cell_forget() -> None:
    model = CostModel()
    model.fold_plan(plan("distributed", 5.0, bucket=0, count=200))
    before = model.residual("distributed", ABC, 0)
    for bucket in range(1, 31):
        model.fold_plan(plan("parallel", 1.0, layers=("a",), bucket=bucket, count=10))
    assert model.residual("distributed", ABC, 0) == pytest.approx(before, rel=0.1)


def test_a_change_is_learned_within_some_hundred_plans() -> None:
    model = CostModel()
    for bucket in range(100):
        model.fold_plan(plan("parallel", 1.0, bucket=bucket, count=20))
    for bucket in range(100, 110):
        model.fold_plan(plan("parallel", 3.0, bucket=bucket, count=20))
    assert estimate(model, "parallel") == pytest.approx(99, rel=0.1)


def test_accuracy_is_a_half_while_nothing_is_known() -> None:
    assert CostModel().accuracy("parallel") == pytest.approx(0.5, abs=0.01)


def test_accuracy_rises_to_one_with_estimates_that_come_true() -> None:
    model = CostModel()
    model.fold_plan(plan("parallel", 1.0, count=500, error=0.0))
    assert model.accuracy("parallel") > 0.98


def test_accuracy_falls_with_estimates_that_do_not() -> None:
    model = CostModel()
    model.fold_plan(plan("parallel", 1.0, count=500, error=1.0))
    assert model.accuracy("parallel") == pytest.approx(exp(-1), abs=0.01)


def test_an_arm_that_is_hard_to_predict_costs_more_than_its_median() -> None:
    model = CostModel()
    model.fold_plan(plan("parallel", 1.0, count=500, error=0.6))
    model.fold_plan(plan("sequential", 1.0, count=500, error=0.1))
    assert model.risk("parallel") > 1.2 > 1.05 > model.risk("sequential") > 1.0


def test_levels_of_load_rise_with_the_queue() -> None:
    assert [load_level(ms) for ms in (0, 7.9, 8, 29, 30, 119, 120, 9_999)] == [
        0,
        0,
        1,
        1,
        2,
        2,
        3,
        3,
    ]


@given(data=st.data())
def test_the_order_of_rows_does_not_matter(data: st.DataObject) -> None:
    rows = [
        plan("parallel" if n % 3 else "distributed", 1 + n / 7, bucket=n // 2, error=n / 50)
        for n in range(20)
    ]
    one, other = CostModel(), CostModel()
    for row in rows:
        one.fold_plan(row)
    for row in data.draw(st.permutations(rows)):
        other.fold_plan(row)
    assert [estimate(one, arm) for arm in ("parallel", "distributed")] == [
        estimate(other, arm) for arm in ("parallel", "distributed")
    ]
    assert one.accuracy("parallel") == other.accuracy("parallel")
