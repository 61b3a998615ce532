"""The selector: which plan is made for what the cache does not have, and why."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lessons import context, record, teach

from anabranch.contract.plan import Arm, Decision, GroupLoad, PlanContext
from anabranch.contract.telemetry import LayerOutcome, telemetry_of
from anabranch.learn.dependency_graph import DependencyGraph
from anabranch.learn.profiler import LayerProfiler
from anabranch.select.adaptive_strategy_selector import AdaptiveStrategySelector
from anabranch.select.plans import ARMS
from anabranch.select.reasons import apart

IO_CPU = {"a": "io", "b": "io", "c": "cpu"}


def selector(mode: Any = "rules", **settings: Any) -> AdaptiveStrategySelector:
    profiler = LayerProfiler()
    return AdaptiveStrategySelector(profiler, DependencyGraph(profiler), mode=mode, **settings)


def informed(
    latencies: Mapping[str, float], mode: Any = "rules", **settings: Any
) -> AdaptiveStrategySelector:
    """A selector that knows how long each layer takes, and nothing of arms."""
    made = selector(mode, **settings)
    teach(made, *(record({name: ms}, plan=()) for name, ms in latencies.items()), times=10)
    return made


def experienced(
    costs: Mapping[Arm, float], mode: Any = "learned", **settings: Any
) -> AdaptiveStrategySelector:
    """A selector that has seen what each arm costs for layers a and b."""
    made = selector(mode, explore=0.0, **settings)
    for number in range(40):
        for arm, total in costs.items():
            asked = context(query=f"q{number}", strategy=arm)
            teach(made, answered(asked, made.decide(asked), total, number * 1_000))
    return made


def answered(asked: PlanContext, decision: Decision, total_ms: float, at_ms: int) -> Any:
    layers = [
        LayerOutcome(layer.layer, decision.strategy, took_ms=30.0, elapsed_ms=total_ms, count=1)
        for layer in asked.missing
    ]
    return telemetry_of(asked, decision, layers, at_ms=at_ms, total_ms=total_ms, success=True)


class TestCache:
    @pytest.mark.parametrize("mode", ["rules", "learned", "shadow"])
    def test_nothing_missing_is_the_cache(self, mode: str) -> None:
        found = selector(mode).decide(context((), cached=("a", "b")))
        assert (found.strategy, found.arms, found.estimated_ms) == ("cache", {}, 0.0)
        assert "2 wanted layers" in found.reason

    @pytest.mark.parametrize("strategy", ["sequential", "parallel", "distributed"])
    def test_a_forced_strategy_governs_only_what_is_missing(self, strategy: Any) -> None:
        found = selector().decide(context((), cached=("a",), strategy=strategy))
        assert found.strategy == "cache"

    def test_forced_cache_sends_nothing_and_says_what_is_left_out(self) -> None:
        found = selector().decide(context(("a", "b"), cached=("c",), strategy="cache"))
        assert (found.strategy, found.arms, found.order) == ("cache", {}, ())
        assert "a, b left out" in found.reason
        assert found.confidence == 0.5

    def test_above_the_threshold_the_rest_is_left_out_if_coverage_allows_it(self) -> None:
        asked = context(("e",), cached=("a", "b", "c", "d"), min_coverage=0.8)
        found = selector().decide(asked)
        assert (found.strategy, found.arms) == ("cache", {})
        assert "80%" in found.reason

    def test_otherwise_the_rest_is_fetched(self) -> None:
        asked = context(("e",), cached=("a", "b", "c", "d"), min_coverage=1.0)
        assert selector().decide(asked).arms == {"io": "sequential"}

    def test_at_the_threshold_the_rest_is_fetched(self) -> None:
        asked = context(("d",), cached=("a", "b", "c"), min_coverage=0.5)
        assert selector(cache_threshold=0.75).decide(asked).strategy != "cache"

    def test_the_threshold_is_a_setting(self) -> None:
        asked = context(("d",), cached=("a", "b", "c"), min_coverage=0.5)
        assert selector(cache_threshold=0.5).decide(asked).strategy == "cache"

    def test_learned_fetches_what_is_missing(self) -> None:
        asked = context(("e",), cached=("a", "b", "c", "d"), min_coverage=0.5)
        assert selector("learned").decide(asked).strategy != "cache"


class TestRules:
    def test_layers_that_gain_are_asked_together(self) -> None:
        found = informed({"a": 40.0, "b": 40.0}).decide(context())
        assert (found.strategy, found.arms) == ("parallel", {"io": "parallel"})
        assert "2.0x, over 1.5x" in found.reason

    def test_layers_that_gain_little_are_not(self) -> None:
        found = informed({"a": 4.0, "b": 90.0}).decide(context())
        assert found.strategy == "sequential"

    def test_the_gain_that_is_enough_is_a_setting(self) -> None:
        chooser = informed({"a": 4.0, "b": 90.0}, parallel_threshold=1.0)
        assert chooser.decide(context()).strategy == "parallel"

    def test_many_layers_are_not_simple_enough_for_parallel(self) -> None:
        names = tuple("abcde")
        found = informed(dict.fromkeys(names, 20.0)).decide(context(names))
        assert found.strategy == "sequential"

    def test_how_many_are_simple_is_a_setting(self) -> None:
        names = tuple("abcde")
        chooser = informed(dict.fromkeys(names, 20.0), parallel_max_layers=5)
        assert chooser.decide(context(names)).strategy == "parallel"

    def test_costly_layers_are_spread(self) -> None:
        names = tuple("abcde")
        found = informed(dict.fromkeys(names, 200.0)).decide(context(names))
        assert (found.strategy, found.arms) == ("distributed", {"io": "distributed"})
        assert "1000 ms, over 500" in found.reason

    def test_what_is_costly_is_a_setting(self) -> None:
        names = tuple("abcde")
        chooser = informed(dict.fromkeys(names, 200.0), distributed_threshold=5_000.0)
        assert chooser.decide(context(names)).strategy == "sequential"

    def test_a_single_cheap_layer_is_asked_sequentially(self) -> None:
        assert informed({"a": 40.0}).decide(context(("a",))).strategy == "sequential"

    def test_a_single_costly_layer_is_distributed(self) -> None:
        assert informed({"a": 900.0}).decide(context(("a",))).strategy == "distributed"

    def test_only_missing_layers_count(self) -> None:
        chooser = informed({"a": 40.0, "b": 40.0, "c": 900.0})
        assert chooser.decide(context(("a", "b"), cached=("c",))).strategy == "parallel"

    def test_a_selector_without_experience_decides_too(self) -> None:
        found = selector().decide(context())
        assert found.strategy == "parallel"
        assert 0 < found.confidence < 1

    def test_rules_do_not_explore(self) -> None:
        chooser = informed({"a": 40.0, "b": 40.0})
        found = [chooser.decide(context(query=f"q{n}")) for n in range(2_000)]
        assert {(one.strategy, one.probability) for one in found} == {("parallel", 1.0)}


class TestForced:
    @pytest.mark.parametrize("mode", ["rules", "learned", "shadow"])
    @pytest.mark.parametrize("strategy", ["sequential", "parallel", "distributed"])
    def test_what_was_asked_for_is_done(self, mode: str, strategy: Any) -> None:
        found = selector(mode).decide(context(strategy=strategy))
        assert (found.strategy, found.arms) == (strategy, {"io": strategy})
        assert "it was asked for" in found.reason

    def test_forced_choices_are_not_explored(self) -> None:
        chooser = selector("learned", explore=1.0)
        found = {
            chooser.decide(context(query=f"q{n}", strategy="parallel")).strategy for n in range(50)
        }
        assert found == {"parallel"}

    def test_distributed_is_done_even_with_one_worker_if_the_query_insists(self) -> None:
        found = selector().decide(context(loads={"io": GroupLoad(1)}, strategy="distributed"))
        assert found.arms == {"io": "distributed"}


class TestPlan:
    def test_sequential_names_every_group(self) -> None:
        asked = context(tuple("abc"), groups=IO_CPU, strategy="sequential")
        assert selector().decide(asked).arms == {"io": "sequential", "cpu": "sequential"}

    def test_the_cheapest_layer_is_asked_first(self) -> None:
        chooser = informed({"a": 90.0, "b": 10.0, "c": 40.0})
        assert chooser.decide(context(tuple("abc"))).order == ("b", "c", "a")

    def test_every_arm_has_an_estimate(self) -> None:
        found = informed({"a": 40.0, "b": 40.0}).decide(context())
        assert found.estimates == pytest.approx(
            {"sequential": 81, "parallel": 43, "distributed": 47}, rel=0.01
        )

    def test_the_estimate_is_that_of_the_slowest_group(self) -> None:
        chooser = informed({"a": 40.0, "b": 40.0, "c": 90.0})
        found = chooser.decide(context(tuple("abc"), groups=IO_CPU, strategy="parallel"))
        assert found.estimated_ms == pytest.approx(93, rel=0.01)
        assert {part.group: round(part.estimated_ms) for part in found.parts} == {
            "io": 43,
            "cpu": 93,
        }

    def test_a_groups_queue_is_part_of_its_estimate(self) -> None:
        asked = context(loads={"io": GroupLoad(4, queue_ms=100.0)}, strategy="parallel")
        idle = context(loads={"io": GroupLoad(4, queue_ms=0.0)}, strategy="parallel")
        chooser = selector()
        gap = chooser.decide(asked).estimated_ms - chooser.decide(idle).estimated_ms
        assert gap == pytest.approx(100)

    def test_where_one_worker_lives_distributed_takes_its_fallback(self) -> None:
        names = tuple("abc")
        chooser = informed(dict.fromkeys(names, 400.0), parallel_max_layers=1)
        loads = {"io": GroupLoad(1), "cpu": GroupLoad(3)}
        found = chooser.decide(context(names, groups=IO_CPU, loads=loads))
        assert found.arms == {"io": "parallel", "cpu": "distributed"}
        assert "io has one worker" in found.reason

    def test_an_unknown_group_is_taken_for_one_idle_worker(self) -> None:
        found = informed({"a": 900.0}).decide(context(("a",), loads={}))
        assert found.arms == {"io": "parallel"}
        assert found.estimated_ms == pytest.approx(903, rel=0.01)

    @pytest.mark.parametrize("mode", ["rules", "learned", "shadow"])
    def test_sequential_does_not_wait_for_a_group_without_workers(self, mode: str) -> None:
        chooser = informed({"a": 4.0, "c": 2.0}, mode=mode, explore=0.5)
        loads = {"io": GroupLoad(2), "cpu": GroupLoad(0)}
        for n in range(50):
            found = chooser.decide(context(("a", "c"), groups=IO_CPU, loads=loads, query=f"q{n}"))
            assert "sequential" not in found.arms.values()
            assert "cpu has no worker" in found.reason
        alone = informed({"a": 4.0, "c": 2.0}, mode=mode)
        found = alone.decide(context(("a", "c"), groups=IO_CPU, loads=loads))
        assert "SEQUENTIAL cannot start" in found.reason

    def test_without_any_worker_no_group_is_worse_than_another(self) -> None:
        asked = context(("a",), loads={"io": GroupLoad(0)})
        found = informed({"a": 4.0}).decide(asked)
        assert found.strategy == "sequential"
        assert "io has no worker" in found.reason

    def test_the_query_that_insists_gets_sequential_anyway(self) -> None:
        loads = {"io": GroupLoad(2), "cpu": GroupLoad(0)}
        asked = context(("a", "c"), groups=IO_CPU, loads=loads, strategy="sequential")
        assert selector().decide(asked).strategy == "sequential"

    def test_the_reason_is_one_sentence_with_its_numbers(self) -> None:
        reason = informed({"a": 40.0, "b": 40.0}).decide(context()).reason
        assert "\n" not in reason
        assert all(number in reason for number in ("43", "81", "47", "2.0x"))

    def test_a_type_hardly_seen_is_marked_so_that_its_error_is_reported_apart(self) -> None:
        chooser = informed({"a": 40.0, "b": 40.0})
        known = chooser.decide(context(type_="factual"))
        novel = chooser.decide(context(type_="never-seen"))
        assert [part.novel for part in (*known.parts, *novel.parts)] == [False, True]

    def test_a_type_never_seen_is_predicted_from_its_layers(self) -> None:
        chooser = experienced({"parallel": 300.0, "sequential": 90.0, "distributed": 200.0})
        known, novel = chooser.decide(context()), chooser.decide(context(type_="never-seen"))
        assert novel.estimated_ms == known.estimated_ms
        assert novel.strategy == known.strategy == "sequential"


class TestLearned:
    @pytest.mark.parametrize("cheapest", ["sequential", "parallel", "distributed"])
    def test_the_arm_that_proved_fastest_is_taken(self, cheapest: Arm) -> None:
        costs: dict[Arm, float] = dict.fromkeys(("sequential", "parallel", "distributed"), 200.0)
        costs[cheapest] = 40.0
        assert experienced(costs).decide(context()).strategy == cheapest

    def test_groups_are_planned_apart(self) -> None:
        chooser = selector("learned", explore=0.0)
        io: dict[Arm, float] = {"parallel": 40.0, "distributed": 200.0}
        cpu: dict[Arm, float] = {"parallel": 400.0, "distributed": 90.0}
        for arm in io:
            teach(
                chooser,
                record({"a": 35.0, "b": 35.0}, arm=arm, total_ms=io[arm], formula_ms=40.0),
                record({"c": 80.0}, arm=arm, total_ms=cpu[arm], formula_ms=85.0),
                times=60,
            )
        found = chooser.decide(context(tuple("abc"), groups=IO_CPU))
        assert found.arms == {"io": "parallel", "cpu": "distributed"}
        assert found.strategy == "distributed"

    def test_a_lone_worker_is_never_sent_a_distributed_plan(self) -> None:
        chooser = experienced({"distributed": 10.0, "parallel": 90.0, "sequential": 95.0})
        found = chooser.decide(context(loads={"io": GroupLoad(1)}))
        assert "distributed" not in found.arms.values()

    def test_an_unreliable_arm_loses_against_a_reliable_one_of_the_same_median(self) -> None:
        chooser = selector("learned", explore=0.0)
        for number in range(300):
            swing = 4.0 if number % 2 else 0.25
            teach(
                chooser,
                record(
                    {"a": 30.0, "b": 30.0},
                    arm="parallel",
                    formula_ms=33.0,
                    estimated_ms=33.0,
                    total_ms=33.0 * swing,
                    at_ms=number * 100,
                ),
                record(
                    {"a": 30.0, "b": 30.0},
                    arm="distributed",
                    formula_ms=39.0,
                    estimated_ms=36.0,
                    total_ms=36.0,
                    at_ms=number * 100,
                ),
            )
        found = chooser.decide(context())
        assert found.estimates["parallel"] < found.estimates["distributed"]
        assert found.strategy == "distributed"

    def test_confidence_follows_how_well_the_arm_was_predicted(self) -> None:
        good = experienced({"parallel": 40.0})
        bad = selector("learned", explore=0.0)
        rng = random.Random(1)
        for number in range(100):
            asked = context(strategy="parallel")
            total = 40.0 * 10 ** rng.uniform(-0.7, 0.7)
            teach(bad, answered(asked, bad.decide(asked), total, number * 1_000))
        forced = context(strategy="parallel")
        assert good.decide(forced).confidence > 0.8 > 0.6 > bad.decide(forced).confidence

    def test_a_decision_is_a_pure_function(self) -> None:
        chooser = experienced({"parallel": 40.0, "sequential": 90.0})
        asked = [context(query=f"q{n}") for n in range(300)]
        assert [chooser.decide(one) for one in asked] == [chooser.decide(one) for one in asked]

    def test_a_new_instance_that_replays_the_past_decides_like_its_peers(self) -> None:
        old = selector("learned", instance="old")
        batches = []
        for number in range(300):
            arm: Arm = ("sequential", "parallel", "distributed")[number % 3]
            asked = context(strategy=arm, query=f"q{number}")
            total = {"sequential": 300.0, "parallel": 120.0, "distributed": 60.0}[arm]
            old.observe(answered(asked, old.decide(asked), total + number % 7, number * 400))
            if number % 25 == 24 and (batch := old.telemetry.take_batch()) is not None:
                batches.append(batch)
        new = selector("learned", instance="new")
        new.telemetry.replay(reversed(batches))
        asked = [context(query=f"id-{n}") for n in range(500)]
        assert [new.decide(one) for one in asked] == [old.decide(one) for one in asked]


class TestExploring:
    def exploring(self, share: float, **fields: Any) -> Counter[tuple[str, bool]]:
        chooser = selector("learned", explore=share)
        found = [chooser.decide(context(query=f"id-{n}", **fields)) for n in range(6_000)]
        return Counter((one.strategy, one.explored) for one in found)

    def test_a_small_share_of_queries_tries_another_arm(self) -> None:
        found = self.exploring(0.06)
        tried = sum(count for (_, explored), count in found.items() if explored)
        assert 160 < tried < 320
        assert {strategy for strategy, explored in found if explored} == {
            "sequential",
            "distributed",
        }

    def test_by_default_it_is_about_one_in_a_hundred(self) -> None:
        chooser = selector("learned")
        found = [chooser.decide(context(query=f"id-{n}")).explored for n in range(10_000)]
        assert 30 < sum(found) < 110

    def test_nothing_is_explored_if_told_so(self) -> None:
        assert not any(explored for _, explored in self.exploring(0.0))

    def test_the_probability_is_that_of_the_plan_taken(self) -> None:
        chooser = selector("learned", explore=0.3)
        found = [chooser.decide(context(query=f"id-{n}")) for n in range(200)]
        assert {(one.explored, round(one.probability, 6)) for one in found} == {
            (False, 0.8),
            (True, 0.1),
        }

    def test_equal_plans_share_their_probability(self) -> None:
        chooser = selector("learned", explore=0.3)
        loads = {"io": GroupLoad(1)}
        found = [chooser.decide(context(query=f"id-{n}", loads=loads)) for n in range(200)]
        assert {(one.strategy, round(one.probability, 6)) for one in found} == {
            ("parallel", 0.9),
            ("sequential", 0.1),
        }

    def test_what_would_miss_the_deadline_is_not_tried(self) -> None:
        found = self.exploring(0.5, remaining_ms=70.0)
        assert "sequential" not in {strategy for strategy, _ in found}

    def test_an_explored_choice_says_so_in_its_reason(self) -> None:
        chooser = selector("learned", explore=0.9)
        found = [chooser.decide(context(query=f"id-{n}")) for n in range(50)]
        assert {"tried" in one.reason for one in found if one.explored} == {True}


class TestShadow:
    costs: ClassVar[dict[Arm, float]] = {
        "parallel": 300.0,
        "sequential": 60.0,
        "distributed": 200.0,
    }

    def test_the_rules_decide_and_the_learned_choice_stands_beside(self) -> None:
        chooser = experienced(self.costs, mode="shadow")
        found = chooser.decide(context())
        assert (found.strategy, found.shadow) == ("parallel", "sequential")
        assert found.shadow_ms is not None
        assert found.shadow_ms < found.estimated_ms

    def test_only_shadow_has_one(self) -> None:
        assert selector("rules").decide(context()).shadow is None
        assert selector("learned").decide(context()).shadow is None

    def test_the_report_says_what_it_would_have_gained(self) -> None:
        chooser = experienced(self.costs, mode="shadow")
        for number in range(30):
            asked = context(query=f"s{number}")
            teach(chooser, answered(asked, chooser.decide(asked), 300.0, 60_000 + number))
        settings = [one.setting for one in chooser.telemetry.get_strategy_recommendations()]
        assert "select.mode" in settings


def test_statistics_say_which_arms_can_be_trusted() -> None:
    stats = experienced({"parallel": 40.0}).stats()
    assert stats["accuracy.parallel"] > 0.8
    assert stats["accuracy.distributed"] == pytest.approx(0.5, abs=0.01)
    assert "cache.hit_rate" not in stats


def test_statistics_include_the_caches_hit_rate() -> None:
    class Cache:
        hit_rate = 0.25

    profiler = LayerProfiler()
    made = AdaptiveStrategySelector(profiler, DependencyGraph(profiler), Cache())
    assert made.stats()["cache.hit_rate"] == 0.25


@dataclass
class Backend:
    """One group of workers: what asking layers a and b really takes, under each arm."""

    latency: dict[str, float] = field(default_factory=lambda: {"a": 60.0, "b": 60.0})
    contention: float = 0.0
    workers: int = 8
    hop_ms: float = 12.0

    def total_ms(self, arm: Arm, rng: random.Random) -> float:
        took = [ms * rng.lognormvariate(0, 0.2) for ms in self.latency.values()]
        if arm == "sequential":
            return sum(took) + 20
        if arm == "parallel":
            return max(took) * (1 + self.contention) + 3
        return max(took) + self.hop_ms * 8 / self.workers + 3


class World:
    """Queries every 10 ms against a backend that changes; outcomes come 20 queries late."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.selector = selector("learned")
        self._rng = random.Random(7)
        self._number = 0
        self._late: list[Any] = []

    def run(self, count: int) -> Counter[str]:
        """Strategies taken over the next `count` queries, explored ones left out."""
        taken: Counter[str] = Counter()
        for _ in range(count):
            self._number += 1
            load = GroupLoad(self.backend.workers, queue_ms=5.0)
            asked = context(query=f"w{self._number}", loads={"io": load}, remaining_ms=60_000)
            found = self.selector.decide(asked)
            taken[found.strategy] += not found.explored
            total = self.backend.total_ms(found.parts[0].arm, self._rng)
            layers = [
                LayerOutcome(name, found.strategy, took_ms=ms, elapsed_ms=total, count=1)
                for name, ms in self.backend.latency.items()
            ]
            at_ms = self._number * 10
            self._late.append(
                telemetry_of(asked, found, layers, at_ms=at_ms, total_ms=total, success=True)
            )
            if len(self._late) > 20:
                self.selector.observe(self._late.pop(0))
        return taken

    def settled(self, count: int = 600) -> str:
        """What is mostly taken in the last hundred of `count` queries."""
        self.run(count - 100)
        (strategy, share), *_ = self.run(100).most_common()
        assert share >= 80, "it has not settled"
        return strategy


class TestAdaptation:
    def test_it_settles_on_what_is_fastest(self) -> None:
        assert World(Backend()).settled() == "parallel"

    def test_costs_that_move_from_io_to_cpu_move_the_choice_and_back(self) -> None:
        world = World(Backend())
        world.settled()
        world.backend.contention = 1.5
        assert world.settled() == "distributed"
        world.backend.contention = 0.0
        assert world.settled(1_500) == "parallel"

    def test_a_layer_ten_times_slower_is_expected_to_be_and_recovers(self) -> None:
        world = World(Backend())
        world.settled()
        world.backend.latency["b"] = 600.0
        world.run(400)
        asked = context(strategy="parallel", loads={"io": GroupLoad(8, 5.0)})
        assert world.selector.decide(asked).estimated_ms == pytest.approx(620, rel=0.25)
        world.backend.latency["b"] = 60.0
        world.run(400)
        assert world.selector.decide(asked).estimated_ms == pytest.approx(70, rel=0.25)

    def test_a_group_that_loses_half_its_workers_is_asked_otherwise_until_they_are_back(
        self,
    ) -> None:
        world = World(Backend(contention=0.6))
        assert world.settled() == "distributed"
        world.backend.workers, world.backend.hop_ms = 4, 60.0  # and their queues grow
        assert world.settled() == "parallel"
        world.backend.workers, world.backend.hop_ms = 8, 12.0
        assert world.settled(1_500) == "distributed"


@given(
    missing=st.sets(st.sampled_from("abcdef"), min_size=1),
    cached=st.sets(st.sampled_from("uvwxyz")),
    mode=st.sampled_from(["rules", "learned", "shadow"]),
    strategy=st.sampled_from(["auto", "sequential", "parallel", "distributed"]),
    workers=st.integers(0, 4),
    coverage=st.floats(0, 1),
    query=st.text(),
)
def test_every_plan_covers_exactly_what_is_missing(
    missing: set[str],
    cached: set[str],
    mode: str,
    strategy: Any,
    workers: int,
    coverage: float,
    query: str,
) -> None:
    where = {name: "io" if name < "d" else "cpu" for name in missing}
    asked = context(
        sorted(missing),
        cached=sorted(cached),
        groups=where,
        query=query,
        strategy=strategy,
        min_coverage=coverage,
        loads={"io": GroupLoad(workers), "cpu": GroupLoad(2)},
    )
    found = selector(mode, explore=0.5).decide(asked)
    assert 0 <= found.confidence <= 1
    assert 0 < found.probability <= 1
    if found.strategy == "cache":
        assert not found.arms
        return
    assert set(found.order) == missing
    assert set(found.arms) == set(where.values())
    assert sorted(name for part in found.parts for name in part.layers) == sorted(missing)
    assert (set(found.arms.values()) == {"sequential"}) == ("sequential" in found.arms.values())
    if strategy == "auto" and not workers and len(set(where.values())) == 2:
        assert found.strategy != "sequential"


ESTIMATES = st.floats(0.01, 2_000)


@given(
    took=st.dictionaries(st.sampled_from("abcd"), ESTIMATES, min_size=1),
    errors=st.dictionaries(st.sampled_from(ARMS), st.floats(0.05, 20), min_size=3),
    waits=st.tuples(st.floats(0, 300), st.floats(0, 300)),
    workers=st.tuples(st.integers(0, 3), st.integers(0, 3)),
)
def test_the_plan_said_to_be_fastest_has_the_smallest_of_the_numbers_in_its_reason(
    took: dict[str, float],
    errors: dict[Arm, float],
    waits: tuple[float, float],
    workers: tuple[int, int],
) -> None:
    chooser = informed(took, mode="learned", explore=0.0)
    for arm, error in errors.items():
        odd = record(took, arm=arm, estimated_ms=50.0, formula_ms=50.0, total_ms=50.0 * error)
        teach(chooser, odd, times=20)
    asked = context(
        tuple(took),
        groups={name: "io" if name < "c" else "cpu" for name in took},
        loads={
            group: GroupLoad(n, queue_ms)
            for group, n, queue_ms in zip(("io", "cpu"), workers, waits, strict=True)
        },
    )
    found = chooser.decide(asked)
    risk = chooser.cost_model.risk
    decisive = max(found.parts, key=lambda part: part.estimated_ms * risk(part.arm))
    cost_ms = decisive.estimated_ms
    said = re.findall(r"(\w+) ([\d.]+)(?=[,;)])", found.reason)
    numbers = {name: float(ms) for name, ms in said}
    assert numbers.keys() >= set(ARMS)
    if "it is expected to be fastest" in found.reason:
        assert min(numbers.values()) == pytest.approx(cost_ms, abs=0.51)
    else:
        assert "SEQUENTIAL cannot start" in found.reason
        assert numbers.pop("sequential") <= min(numbers.values())
        assert min(numbers.values()) == pytest.approx(cost_ms, abs=0.51)
    for group, n in zip(("io", "cpu"), workers, strict=True):
        asked_there = group in {layer.group for layer in asked.missing}
        assert (f"{group} has one worker" in found.reason) == (asked_there and n == 1)
        assert (f"{group} has no worker" in found.reason) == (asked_there and n == 0)


@pytest.mark.parametrize(
    ("numbers", "texts"),
    [
        ((10.0, 19.0), ["10", "19"]),
        ((10.2, 9.8), ["10.2", "9.8"]),
        ((500.004, 500.0), ["500.004", "500.000"]),
        ((3.0, 3.0), ["3", "3"]),
        ((1e-12, 2e-12), ["0.000000", "0.000000"]),
    ],
)
def test_numbers_that_differ_look_different(numbers: tuple[float, ...], texts: list[str]) -> None:
    assert apart(*numbers) == texts
