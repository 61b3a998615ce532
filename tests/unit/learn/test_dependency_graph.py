"""The dependency graph: what goes together, what pays, what asking together gains."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lessons import MINUTE_MS, Pupil, record

from anabranch.contract.telemetry import ExecutionTelemetry
from anabranch.learn.dependency_graph import MAX_TOGETHER, SelectionContext, draw
from anabranch.learn.execution_telemetry import ExecutionTelemetryCollector

AB = {"a": 40.0, "b": 40.0}
ABC = {"a": 40.0, "b": 40.0, "c": 40.0}


@pytest.fixture
def pupil() -> Pupil:
    return Pupil()


def choose(pupil: Pupil, query: str = "q", default: tuple[str, ...] = ("a", "b", "c")) -> list[str]:
    return pupil.graph.get_layer_selection("factual", SelectionContext(query, default))


def a_query(where: Callable[[float], bool]) -> str:
    """An id whose draw for exploring layers is as wanted."""
    return next(f"q{n}" for n in range(100_000) if where(draw(f"q{n}", 1)))


EXPLORES = a_query(lambda number: number < 0.02)
DOES_NOT = a_query(lambda number: number >= 0.02)


class TestCoupling:
    def test_layers_always_wanted_together_are_coupled_fully(self, pupil: Pupil) -> None:
        pupil.teach(record(AB), times=5)
        assert pupil.graph.get_layer_coupling_score("a", "b") == 1.0

    def test_layers_never_wanted_together_are_not_coupled(self, pupil: Pupil) -> None:
        pupil.teach(record({"a": 1.0}), record({"b": 1.0}), times=5)
        assert pupil.graph.get_layer_coupling_score("a", "b") == 0.0

    def test_it_is_the_share_of_queries_that_want_both_among_those_that_want_either(
        self, pupil: Pupil
    ) -> None:
        pupil.teach(record(AB), record({"a": 1.0}), record({"a": 1.0}), record({"b": 1.0}), times=5)
        assert pupil.graph.get_layer_coupling_score("a", "b") == pytest.approx(0.25)

    def test_pairs_have_no_order(self, pupil: Pupil) -> None:
        pupil.teach(record({"b": 1.0, "a": 1.0}), record({"a": 1.0}), times=5)
        graph = pupil.graph
        assert graph.get_layer_coupling_score("a", "b") == graph.get_layer_coupling_score("b", "a")
        assert 0 < graph.get_layer_coupling_score("a", "b") < 1

    def test_a_layer_is_coupled_to_itself(self, pupil: Pupil) -> None:
        assert pupil.graph.get_layer_coupling_score("a", "a") == 1.0

    def test_nothing_is_said_below_min_samples(self, pupil: Pupil) -> None:
        pupil.teach(record(AB), times=4)
        assert pupil.graph.get_layer_coupling_score("a", "b") == 0.0

    def test_min_samples_is_a_setting(self) -> None:
        pupil = Pupil(min_samples=2)
        pupil.teach(record(AB), times=2)
        assert pupil.graph.get_layer_coupling_score("a", "b") == 1.0

    def test_an_unknown_layer_is_coupled_to_nothing(self, pupil: Pupil) -> None:
        pupil.teach(record(AB), times=9)
        assert pupil.graph.get_layer_coupling_score("a", "nobody") == 0.0

    def test_layers_from_the_cache_count_as_wanted(self, pupil: Pupil) -> None:
        pupil.teach(record({"a": 1.0}, cached=["b"]), times=5)
        assert pupil.graph.get_layer_coupling_score("a", "b") == 1.0

    def test_habits_that_end_are_forgotten(self, pupil: Pupil) -> None:
        pupil.teach(record(AB), times=100)
        for minute in range(1, 40):
            at_ms = minute * MINUTE_MS
            pupil.teach(record({"a": 1.0}, at_ms=at_ms), record({"b": 1.0}, at_ms=at_ms), times=20)
        assert pupil.graph.get_layer_coupling_score("a", "b") < 0.01


class TestIndependence:
    def test_layers_coupled_to_no_other_are_independent(self, pupil: Pupil) -> None:
        pupil.teach(record(AB), record({"c": 1.0}), times=5)
        assert pupil.graph.get_independent_layers(["a", "b", "c"]) == ["c"]

    def test_all_are_while_nothing_is_known(self, pupil: Pupil) -> None:
        assert pupil.graph.get_independent_layers(["b", "a"]) == ["b", "a"]

    def test_a_layer_is_judged_only_against_those_named(self, pupil: Pupil) -> None:
        pupil.teach(record(AB), record({"c": 1.0}), times=5)
        assert pupil.graph.get_independent_layers(["a", "c"]) == ["a", "c"]

    def test_a_layer_named_twice_does_not_depend_on_itself(self, pupil: Pupil) -> None:
        pupil.teach(record({"a": 1.0}), times=9)
        assert pupil.graph.get_independent_layers(["a", "a"]) == ["a"]

    def test_of_none_there_are_none(self, pupil: Pupil) -> None:
        assert pupil.graph.get_independent_layers([]) == []


class TestParallelization:
    def test_two_equal_layers_gain_a_factor_of_two(self, pupil: Pupil) -> None:
        pupil.teach(record(AB), times=5)
        assert pupil.graph.get_parallelization_benefit(["a", "b"]) == pytest.approx(2.0, rel=0.01)

    def test_a_short_and_a_long_layer_gain_little(self, pupil: Pupil) -> None:
        pupil.teach(record({"a": 1.0, "b": 100.0}), times=5)
        assert pupil.graph.get_parallelization_benefit(["a", "b"]) == pytest.approx(1.01, rel=0.01)

    def test_it_is_the_mean_over_all_pairs(self, pupil: Pupil) -> None:
        pupil.teach(record({"a": 50.0, "b": 50.0, "c": 100.0}), times=5)
        mean = (100 / 50 + 150 / 100 + 150 / 100) / 3
        found = pupil.graph.get_parallelization_benefit(["a", "b", "c"])
        assert found == pytest.approx(mean, rel=0.01)

    def test_layers_that_get_in_each_others_way_gain_less(self, pupil: Pupil) -> None:
        pupil.teach(record(AB, arm="sequential"), times=5)
        pupil.teach(record({"a": 76.0, "b": 76.0}, arm="parallel"), times=5)
        assert pupil.graph.get_parallelization_benefit(["a", "b"]) == pytest.approx(
            80 / 76, rel=0.01
        )

    def test_it_is_never_below_one(self, pupil: Pupil) -> None:
        pupil.teach(record(AB, arm="sequential"), times=5)
        pupil.teach(record({"a": 400.0, "b": 400.0}, arm="parallel"), times=5)
        assert pupil.graph.get_parallelization_benefit(["a", "b"]) == 1.0

    def test_it_is_capped_at_five(self, pupil: Pupil) -> None:
        pupil.teach(record({"a": 900.0, "b": 900.0}, arm="sequential"), times=5)
        pupil.teach(record({"a": 9.0, "b": 9.0}, arm="parallel"), times=5)
        assert pupil.graph.get_parallelization_benefit(["a", "b"]) == 5.0

    def test_a_single_layer_gains_nothing(self, pupil: Pupil) -> None:
        pupil.teach(record(AB), times=9)
        assert pupil.graph.get_parallelization_benefit(["a"]) == 1.0
        assert pupil.graph.get_parallelization_benefit(["a", "a"]) == 1.0
        assert pupil.graph.get_parallelization_benefit([]) == 1.0

    def test_a_few_samples_of_an_arm_are_not_yet_believed(self, pupil: Pupil) -> None:
        pupil.teach(record(AB, arm="parallel"), times=20)
        pupil.teach(record({"a": 900.0, "b": 900.0}, arm="sequential"), times=1)
        assert pupil.graph.get_parallelization_benefit(["a", "b"]) < 2.6

    def test_the_order_of_layers_does_not_matter(self, pupil: Pupil) -> None:
        pupil.teach(record({"a": 13.0, "b": 57.0, "c": 99.0}), times=5)
        found = {pupil.graph.get_parallelization_benefit(p) for p in permutations("abc")}
        assert len(found) == 1

    def test_layers_nobody_measured_count_as_typical(self, pupil: Pupil) -> None:
        pupil.teach(record({"a": 80.0}), times=5)
        assert pupil.graph.get_parallelization_benefit(["a", "new"]) == pytest.approx(2.0, rel=0.01)


class TestCachedResults:
    def test_it_is_success_times_frequency_times_results_by_cost(self, pupil: Pupil) -> None:
        pupil.teach(record(AB), times=5)
        pupil.teach(record({"c": 40.0}), times=5)
        found = pupil.graph.get_cached_results_benefit(["a", "b"])
        assert found == pytest.approx(1.0 * 0.5 * 10 / 80, rel=0.01)

    def test_combinations_asked_more_often_pay_more(self, pupil: Pupil) -> None:
        pupil.teach(record(AB), times=15)
        pupil.teach(record({"b": 40.0, "c": 40.0}), times=5)
        graph = pupil.graph
        assert graph.get_cached_results_benefit(["a", "b"]) > graph.get_cached_results_benefit(
            ["b", "c"]
        )

    def test_larger_combinations_serve_the_smaller(self, pupil: Pupil) -> None:
        pupil.teach(record(ABC), times=5)
        assert pupil.graph.get_cached_results_benefit(["a", "b"]) > 0

    def test_layers_that_fail_pay_less(self) -> None:
        good, bad = Pupil(), Pupil()
        good.teach(record(AB), times=10)
        failed = record(AB)
        layers = tuple(type(one)(one.layer, one.source, "error") for one in failed.layers)
        bad.teach(record(AB), times=5)
        bad.teach(type(failed)(**{**_fields(failed), "layers": layers}), times=5)
        assert bad.graph.get_cached_results_benefit(["a", "b"]) == pytest.approx(
            good.graph.get_cached_results_benefit(["a", "b"]) / 2, rel=0.02
        )

    def test_it_never_exceeds_one(self, pupil: Pupil) -> None:
        pupil.teach(record({"a": 0.01, "b": 0.01}), times=9)
        assert pupil.graph.get_cached_results_benefit(["a", "b"]) == 1.0

    def test_it_is_zero_below_min_samples(self, pupil: Pupil) -> None:
        pupil.teach(record(AB), times=4)
        assert pupil.graph.get_cached_results_benefit(["a", "b"]) == 0.0

    def test_it_is_zero_for_a_combination_never_asked(self, pupil: Pupil) -> None:
        pupil.teach(record({"a": 1.0}), record({"b": 1.0}), times=9)
        assert pupil.graph.get_cached_results_benefit(["a", "b"]) == 0.0

    def test_it_is_zero_for_no_layers(self, pupil: Pupil) -> None:
        pupil.teach(record(AB), times=9)
        assert pupil.graph.get_cached_results_benefit([]) == 0.0


class TestSelection:
    def test_it_falls_back_to_the_types_default(self, pupil: Pupil) -> None:
        assert choose(pupil) == ["a", "b", "c"]

    def test_layers_that_never_contribute_are_left_out(self, pupil: Pupil) -> None:
        pupil.teach(record(ABC, unused=["c"]), times=5)
        assert choose(pupil, DOES_NOT) == ["a", "b"]

    def test_a_layer_with_too_few_samples_is_kept(self, pupil: Pupil) -> None:
        pupil.teach(record(ABC, unused=["c"]), times=4)
        assert choose(pupil, DOES_NOT) == ["a", "b", "c"]

    def test_a_layer_that_contributes_now_and_then_is_kept(self, pupil: Pupil) -> None:
        for number in range(50):
            unused = [] if number % 10 == 0 else ["c"]
            pupil.teach(record(ABC, unused=unused))
        assert choose(pupil, DOES_NOT) == ["a", "b", "c"]

    def test_the_best_layer_is_kept_when_none_contributes_enough(self, pupil: Pupil) -> None:
        pupil.teach(record(ABC, unused=["a", "b", "c"]), times=99)
        pupil.teach(record(ABC, unused=["a", "c"]))
        assert choose(pupil, DOES_NOT) == ["b"]

    def test_types_do_not_learn_from_each_other(self, pupil: Pupil) -> None:
        pupil.teach(record(ABC, unused=["c"], type_="temporal"), times=9)
        assert choose(pupil, DOES_NOT) == ["a", "b", "c"]

    def test_failures_of_a_layer_are_not_held_against_it(self, pupil: Pupil) -> None:
        failed = record(ABC)
        layers = tuple(type(one)(one.layer, one.source, "error") for one in failed.layers)
        pupil.teach(type(failed)(**{**_fields(failed), "layers": layers}), times=9)
        assert choose(pupil, DOES_NOT) == ["a", "b", "c"]

    def test_a_small_share_of_queries_tries_a_left_out_layer_and_says_so(
        self, pupil: Pupil
    ) -> None:
        pupil.teach(record(ABC, unused=["c"]), times=5)
        found = pupil.graph.select_layers("factual", SelectionContext(EXPLORES, ("a", "b", "c")))
        assert (found.layers, found.explored, found.left_out) == (("a", "b", "c"), "c", ())

    def test_the_others_name_what_they_leave_out(self, pupil: Pupil) -> None:
        pupil.teach(record(ABC, unused=["c"]), times=5)
        found = pupil.graph.select_layers("factual", SelectionContext(DOES_NOT, ("a", "b", "c")))
        assert (found.explored, found.left_out) == (None, ("c",))

    def test_the_explored_share_is_what_was_set(self) -> None:
        pupil = Pupil(explore=0.1)
        pupil.teach(record(ABC, unused=["c"]), times=5)
        tried = sum("c" in choose(pupil, f"id-{number}") for number in range(5_000))
        assert 400 < tried < 600

    def test_nothing_is_explored_when_the_share_is_zero(self) -> None:
        pupil = Pupil(explore=0.0)
        pupil.teach(record(ABC, unused=["c"]), times=5)
        assert not any("c" in choose(pupil, f"id-{number}") for number in range(1_000))

    def test_every_left_out_layer_is_tried_by_some_query(self) -> None:
        pupil = Pupil(explore=1.0)
        pupil.teach(record(ABC, unused=["b", "c"]), times=5)
        tried = {tuple(choose(pupil, f"id-{number}")) for number in range(100)}
        assert tried == {("a", "b"), ("a", "c")}

    def test_the_same_query_gets_the_same_layers(self, pupil: Pupil) -> None:
        pupil.teach(record(ABC, unused=["c"]), times=5)
        assert all(choose(pupil, q) == choose(pupil, q) for q in (EXPLORES, DOES_NOT))

    def test_a_layer_that_begins_to_contribute_comes_back_through_exploration(self) -> None:
        pupil = Pupil()
        pupil.teach(record(ABC, unused=["c"]), times=20)
        asked_at = []
        for number in range(1, 1_500):
            if "c" in choose(pupil, f"id-{number}"):
                asked_at.append(number)
                pupil.teach(record(ABC, at_ms=number * MINUTE_MS))
            else:
                pupil.teach(record(AB, at_ms=number * MINUTE_MS))
        assert set(range(1_400, 1_500)) <= set(asked_at)
        assert asked_at[0] > 5


class TestBoundsAndOrder:
    def test_a_type_is_known_from_min_samples_on(self, pupil: Pupil) -> None:
        pupil.teach(record(AB), times=4)
        assert not pupil.graph.knows_type("factual")
        pupil.teach(record(AB))
        assert pupil.graph.knows_type("factual")

    def test_memory_is_bounded_whatever_layers_and_types_are_named(self, pupil: Pupil) -> None:
        for number in range(6_000):
            pupil.teach(record({f"l{number}": 1.0, f"m{number}": 1.0}, type_=f"t{number}"))
        stats = pupil.graph.stats()
        assert stats["types"] <= 4_096
        assert stats["layers"] <= 2_048
        assert stats["pairs"] <= 1_024

    def test_questions_for_very_many_layers_teach_no_pairs(self, pupil: Pupil) -> None:
        pupil.teach(record({f"l{n}": 1.0 for n in range(MAX_TOGETHER + 1)}), times=5)
        assert pupil.graph.stats()["pairs"] == 0

    @given(data=st.data())
    def test_what_is_learned_does_not_depend_on_the_order(self, data: st.DataObject) -> None:
        batches = _batches()
        order = data.draw(st.permutations(batches))
        one, other = Pupil(instance="one"), Pupil(instance="other")
        one.collector.replay(batches)
        other.collector.replay(order)
        assert _everything(one) == _everything(other)


def _fields(one: ExecutionTelemetry) -> dict[str, object]:
    return {name: getattr(one, name) for name in one.__struct_fields__}


def _batches() -> list[object]:
    collectors = [ExecutionTelemetryCollector(f"i{n}") for n in range(3)]
    batches = []
    for number in range(12):
        collector = collectors[number % 3]
        took = {"a": 10.0 + number, "b": 40.0} if number % 4 else {"b": 7.0, "c": 3.0 + number}
        collector.record(record(took, at_ms=number * 40_000, unused=["b"], query=f"q{number}"))
        batches.append(collector.take_batch())
    return batches


def _everything(pupil: Pupil) -> list[object]:
    graph = pupil.graph
    pairs = [("a", "b"), ("b", "c"), ("a", "c")]
    return [
        [graph.get_layer_coupling_score(*pair) for pair in pairs],
        [graph.get_parallelization_benefit(pair) for pair in pairs],
        [graph.get_cached_results_benefit(pair) for pair in pairs],
        [choose(pupil, f"q{number}") for number in range(50)],
        graph.get_independent_layers(["a", "b", "c"]),
        graph.stats(),
    ]
