"""Plans are kept until something is learned, and nobody can tell from the decisions."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from lessons import context, outcome

from anabranch.contract.plan import Decision, GroupLoad, PlanContext
from anabranch.contract.rows import LayerSum, PlanSum
from anabranch.contract.telemetry import ExecutionTelemetry, telemetry_of
from anabranch.learn.cost_model import CostModel, CostPriors
from anabranch.learn.dependency_graph import DependencyGraph
from anabranch.learn.profiler import LayerProfiler
from anabranch.select.adaptive_strategy_selector import AdaptiveStrategySelector
from anabranch.select.plans import Plans
from anabranch.select.prepared_plans import MAX_PREPARED, PreparedPlans


class World:
    """Questions and answers at random, of few kinds, so that plans are used again."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.now_ms = 1_000_000

    def ask(self, number: int) -> PlanContext:
        rng = self.rng
        names = rng.choice(["a", "ab", "abc", "cd"])
        cached = rng.choice(["", "", "xyz"])
        return context(
            tuple(names),
            cached=tuple(cached),
            groups={"c": "cpu", "d": "cpu"},
            loads={"io": GroupLoad(4, rng.choice([0.0, 50.0])), "cpu": GroupLoad(rng.randrange(3))},
            query=f"q{number}",
            type_=rng.choice(["seen", "seen", f"new{number}"]),
            strategy=rng.choice(["auto"] * 6 + ["sequential", "parallel", "distributed", "cache"]),
            min_coverage=rng.choice([0.5, 1.0]),
            remaining_ms=rng.choice([30.0, 1_000.0]),
        )

    def answer(self, asked: PlanContext, decision: Decision) -> ExecutionTelemetry:
        self.now_ms += 100
        took = [self.rng.lognormvariate(3, 1) for _ in asked.missing]
        layers = [
            outcome(layer.layer, decision.arms.get(layer.group, "none"), ms)
            for layer, ms in zip(asked.missing, took, strict=True)
        ]
        total_ms = max(took, default=1.0)
        at_ms = self.now_ms
        return telemetry_of(asked, decision, layers, at_ms=at_ms, total_ms=total_ms, success=True)


@pytest.mark.parametrize("mode", ["rules", "learned", "shadow"])
@pytest.mark.parametrize("explore", [None, 0.3])
def test_a_selector_decides_as_one_that_keeps_nothing(mode: Any, explore: float | None) -> None:
    profiler, costs = LayerProfiler(), CostModel()
    graph = DependencyGraph(profiler)

    def made() -> AdaptiveStrategySelector:
        return AdaptiveStrategySelector(
            profiler, graph, mode=mode, explore=explore, cost_model=costs
        )

    keeping, world = made(), World(seed=5)
    for number in range(600):
        asked = world.ask(number)
        decision = keeping.decide(asked)
        assert decision == made().decide(asked)
        keeping.observe(world.answer(asked, decision))


def test_until_something_is_learned_the_same_question_has_the_same_plans() -> None:
    profiler, measured, costs = LayerProfiler(), LayerProfiler(), CostModel()
    prepared = PreparedPlans(profiler, DependencyGraph(measured), costs)
    first = prepared.of(context(query="q1"))
    assert prepared.of(context(query="q2", remaining_ms=5.0, cached=("x",))) is first
    layer, plan = LayerSum(1, "t", "parallel", "z"), PlanSum(1, "t", "parallel", ("z",), 0, False)
    for learn in (
        lambda: profiler.fold_layer(layer),
        lambda: measured.fold_layer(layer),
        lambda: costs.fold_plan(plan),
        lambda: profiler.forget_after(0),
        lambda: costs.forget_after(0),
    ):
        learn()
        again = prepared.of(context())
        assert again is not first
        assert again is prepared.of(context())
        first = again


def test_changes_of_one_kind_do_not_hide_those_of_another() -> None:
    profiler, costs = LayerProfiler(), CostModel()
    prepared = PreparedPlans(profiler, DependencyGraph(profiler), costs)
    before = prepared.of(context())
    profiler.fold_layer(LayerSum(1, "t", "parallel", "z"))
    after = prepared.of(context())
    assert after is not before
    profiler.fold_layer(LayerSum(1, "t", "parallel", "z"))
    for _ in range(2):
        costs.fold_plan(PlanSum(1, "t", "parallel", ("z",), 0, False))
    assert prepared.of(context()) is not after


def test_one_after_another_each_layer_waits_in_its_own_groups_queue() -> None:
    asked = context(
        ("a", "b", "c"),
        groups={"c": "cpu"},
        loads={"io": GroupLoad(4, 30.0), "cpu": GroupLoad(4, 7.0)},
    )
    plans = Plans(asked, LayerProfiler(), CostModel(), novel=False)
    each_ms, priors = LayerProfiler().latency_ms("a"), CostPriors()
    assert plans.estimates["sequential"] == 3 * each_ms + 2 * 30.0 + 7.0 + priors.sequential_ms
    assert plans.estimates["parallel"] == each_ms + 30.0 + priors.parallel_ms


@pytest.mark.parametrize(
    "other",
    [
        context(("a",)),
        context(("a", "b"), groups={"b": "cpu"}),
        context(loads={"io": GroupLoad(3), "cpu": GroupLoad(4)}),
        context(loads={"io": GroupLoad(4, 1.0), "cpu": GroupLoad(4)}),
        context(strategy="parallel"),
    ],
)
def test_what_plans_depend_on_tells_them_apart(other: PlanContext) -> None:
    profiler = LayerProfiler()
    prepared = PreparedPlans(profiler, DependencyGraph(profiler), CostModel())
    assert prepared.of(context()) is not prepared.of(other)


def test_no_more_kinds_are_kept_than_its_bound() -> None:
    profiler = LayerProfiler()
    prepared = PreparedPlans(profiler, DependencyGraph(profiler), CostModel())
    for number in range(MAX_PREPARED + 10):
        assert isinstance(prepared.of(context((f"l{number}",))), Plans)
    assert len(prepared._plans) <= MAX_PREPARED
