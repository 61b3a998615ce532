"""Offline replay: what other settings would have cost, and when nothing can be said."""

from __future__ import annotations

import random
from functools import cache

import pytest
from lessons import context, record
from msgspec.structs import replace

from anabranch.config.settings import SelectConfig
from anabranch.contract.plan import Arm
from anabranch.contract.telemetry import LayerOutcome, TelemetryBatch, telemetry_of
from anabranch.learn.dependency_graph import DependencyGraph
from anabranch.learn.execution_telemetry import ExecutionTelemetryCollector
from anabranch.learn.profiler import LayerProfiler
from anabranch.select.adaptive_strategy_selector import AdaptiveStrategySelector
from anabranch.select.replay import Score, estimate, mean
from anabranch.select.tuning import evaluate, tune

RULES = SelectConfig(mode="rules")
LEARNED = SelectConfig(mode="learned")
COSTS_MS: dict[Arm, float] = {"sequential": 130.0, "parallel": 150.0, "distributed": 80.0}
"""True means: the rules take PARALLEL here, the worst."""
SIGMA = 0.2


@cache
def log(explore: float = 0.3, count: int = 3_000, seed: int = 3) -> tuple[TelemetryBatch, ...]:
    """Batches of an instance that followed the rules and explored."""
    profiler = LayerProfiler()
    graph = DependencyGraph(profiler)
    selector = AdaptiveStrategySelector(profiler, graph, explore=explore)
    folds = (profiler, graph, selector.cost_model)
    collector = ExecutionTelemetryCollector("logged", folds, sample=0.3)
    rng, batches = random.Random(seed), []
    for number in range(count):
        asked = context(query=f"q{number}", remaining_ms=60_000)
        decision = selector.decide(asked)
        noise = rng.lognormvariate(-SIGMA * SIGMA / 2, SIGMA)
        total = COSTS_MS[decision.parts[0].arm] * noise
        layers = [LayerOutcome(n, decision.strategy, took_ms=60.0, elapsed_ms=total) for n in "ab"]
        at_ms = number * 20
        collector.record(
            telemetry_of(asked, decision, layers, at_ms=at_ms, total_ms=total, success=True)
        )
        if number % 50 == 49 and (batch := collector.take_batch()) is not None:
            batches.append(batch)
    return tuple(batches)


def score(match: float = 1.0, actual_ms: float = 100.0, **fields: float) -> Score:
    values = {"weight": 1.0, "expected_ms": 100.0, "logged_ms": 100.0, "sigma": 0.3, **fields}
    return Score(strategy="parallel", actual_ms=actual_ms, match=match, **values)


class TestEvaluation:
    def test_the_settings_in_force_are_estimated_as_they_really_were(self) -> None:
        found = evaluate(log(), RULES)
        assert found.mean_ms is not None
        assert found.mean_ms.low < COSTS_MS["parallel"] < found.mean_ms.high

    def test_settings_that_were_only_explored_are_estimated_as_they_would_have_been(self) -> None:
        found = evaluate(log(), LEARNED)
        assert found.mean_ms is not None
        assert found.mean_ms.value == pytest.approx(COSTS_MS["distributed"], rel=0.1)
        assert found.mean_ms.high < COSTS_MS["sequential"]

    def test_the_percentile_is_estimated_too(self) -> None:
        found = evaluate(log(), RULES)
        true_p95 = COSTS_MS["parallel"] * 2.718281828 ** (1.645 * SIGMA - SIGMA * SIGMA / 2)
        assert found.p95_ms is not None
        assert found.p95_ms.low <= found.p95_ms.value <= found.p95_ms.high
        assert found.p95_ms.value == pytest.approx(true_p95, rel=0.1)

    def test_intervals_hold_the_truth_about_as_often_as_they_say(self) -> None:
        held = 0
        for seed in range(20):
            found = evaluate(log(count=1_000, seed=seed), RULES)
            assert found.mean_ms is not None
            held += found.mean_ms.low <= COSTS_MS["parallel"] <= found.mean_ms.high
        assert held >= 16

    def test_batches_may_be_read_in_any_order(self) -> None:
        assert evaluate(tuple(reversed(log())), RULES) == evaluate(log(), RULES)

    def test_a_batch_read_twice_counts_once(self) -> None:
        assert evaluate((*log(), *log()), RULES) == evaluate(log(), RULES)

    def test_forced_queries_are_no_evidence_of_choices(self) -> None:
        forced = [
            replace(one, context=context(strategy="parallel"))
            for batch in log()
            for one in batch.sampled
        ]
        only = TelemetryBatch("x", 1, sampled=tuple(forced))
        assert evaluate([only], RULES).records == 0


class TestRefusal:
    def test_an_empty_log_says_nothing(self) -> None:
        found = evaluate([], RULES)
        assert (found.mean_ms, found.p95_ms) == (None, None)
        assert found.refused is not None

    def test_without_exploration_nothing_is_said_of_other_choices(self) -> None:
        found = evaluate(log(explore=0.0), LEARNED)
        assert found.mean_ms is None
        assert found.refused is not None
        assert "distributed" in found.refused or "evidence" in found.refused

    def test_but_what_was_done_can_be_judged(self) -> None:
        assert evaluate(log(explore=0.0), RULES).mean_ms is not None

    def test_a_few_very_heavy_agreements_are_not_taken_for_many(self) -> None:
        found = [*[score(match=0.0) for _ in range(1_000)], *[score(match=1.0) for _ in range(49)]]
        assert estimate(found).mean_ms is None
        lopsided = [*[score() for _ in range(100)], score(match=2_000.0)]
        assert estimate(lopsided).mean_ms is None

    def test_a_strategy_hardly_ever_tried_is_named(self) -> None:
        found = [
            *[score() for _ in range(200)],
            *[replace(score(match=0.0), strategy="distributed") for _ in range(50)],
        ]
        refused = estimate(found).refused
        assert refused is not None
        assert "distributed would be taken in 50 of 250" in refused


class TestScores:
    def test_where_the_candidate_disagrees_the_model_speaks(self) -> None:
        assert score(match=0.0, actual_ms=900.0, expected_ms=70.0).mean_ms == 70.0

    def test_where_it_agrees_the_models_error_is_weighed_by_how_rarely_that_was_done(self) -> None:
        assert score(match=10.0, actual_ms=90.0, logged_ms=100.0).mean_ms == 0.0

    def test_a_right_model_is_not_harmed_by_wrong_probabilities(self) -> None:
        rng = random.Random(1)
        found = [
            score(match=rng.choice((0.0, 40.0)), actual_ms=100 + rng.gauss(0, 1))
            for _ in range(4_000)
        ]
        assert mean(found, [one.mean_ms for one in found]).value == pytest.approx(100, rel=0.02)

    def test_right_probabilities_are_not_harmed_by_a_wrong_model(self) -> None:
        rng = random.Random(1)
        found = [
            score(match=4.0 if rng.random() < 0.25 else 0.0, expected_ms=500.0, logged_ms=500.0)
            for _ in range(20_000)
        ]
        assert mean(found, [one.mean_ms for one in found]).value == pytest.approx(100, rel=0.1)

    def test_a_record_that_stands_for_many_weighs_as_many(self) -> None:
        found = [score(actual_ms=10.0, weight=9.0), score(actual_ms=110.0, weight=1.0)]
        assert mean(found, [one.mean_ms for one in found]).value == pytest.approx(20.0)

    def test_the_chance_of_being_fast_rises_with_the_limit(self) -> None:
        chances = [score(match=0.0).below(limit) for limit in (0.0, 50.0, 100.0, 200.0, 900.0)]
        assert chances == sorted(chances)
        assert chances[0] == 0.0
        assert chances[-1] > 0.99


class TestTuning:
    def test_settings_that_are_surely_better_are_proposed(self) -> None:
        found = tune(log(count=2_000), RULES)
        assert found.proposed is not None
        assert found.gain_ms is not None
        assert found.gain_ms.low > 0
        better = evaluate(log(count=2_000), found.proposed).mean_ms
        present = evaluate(log(count=2_000), RULES).mean_ms
        assert better is not None
        assert present is not None
        assert better.high < present.low

    def test_what_is_best_already_is_left_alone(self) -> None:
        best = tune(log(count=2_000), RULES).proposed
        assert best is not None
        assert tune(log(count=2_000), best).proposed is None

    def test_a_thin_log_proposes_nothing_and_says_why(self) -> None:
        found = tune(log(count=100), RULES)
        assert found.proposed is None
        assert "evidence" in found.reason

    def test_other_settings_are_kept(self) -> None:
        found = tune(log(count=2_000), replace(RULES, cache_threshold=0.6)).proposed
        assert found is not None
        assert found.cache_threshold == 0.6


def test_answers_from_the_cache_are_no_evidence_of_arms() -> None:
    cached = record({}, cached=["a"], context=context((), cached=("a",)))
    assert evaluate([TelemetryBatch("x", 1, sampled=(cached,))], RULES).records == 0
