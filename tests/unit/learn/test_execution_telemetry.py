"""Telemetry: what is recorded, shared, counted once, and what is made of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lessons import MINUTE_MS, Pupil, context, outcome, record
from msgspec.structs import replace

from anabranch.contract.plan import Decision, PlanPart
from anabranch.contract.rows import LayerSum, Rows
from anabranch.contract.telemetry import ExecutionTelemetry, TelemetryBatch, telemetry_of
from anabranch.learn.execution_telemetry import (
    MAX_SAMPLED,
    READ_ROWS,
    SETTLE,
    SETTLE_MS,
    ExecutionTelemetryCollector,
)
from anabranch.learn.seen_batches import WINDOW, SeenBatches

AB = {"a": 30.0, "b": 40.0}


@pytest.fixture
def collector() -> ExecutionTelemetryCollector:
    return ExecutionTelemetryCollector("me", sample=0.0)


def collect(
    collector: ExecutionTelemetryCollector, *records: ExecutionTelemetry, times: int = 1
) -> None:
    for _ in range(times):
        for one in records:
            collector.record(one)


def decision(**fields: Any) -> Decision:
    part = PlanPart("io", "parallel", ("a", "b"), 0, 50.0, 50.0)
    values: dict[str, Any] = {
        "strategy": "parallel",
        "arms": {"io": "parallel"},
        "order": ("a", "b"),
        "confidence": 0.7,
        "reason": "why",
        "estimated_ms": 50.0,
        "estimates": {"parallel": 50.0},
        "parts": (part,),
    }
    return Decision(**{**values, **fields})


class TestRecord:
    def make(self, total_ms: float = 40.0, **fields: Any) -> ExecutionTelemetry:
        layers = [outcome("a", queued_ms=2.0), outcome("b", queued_ms=9.0), outcome("c", "cache")]
        given_: dict[str, Any] = {"at_ms": 5, "success": True, **fields}
        asked = context(("a", "b"), cached=("c",), query="q1")
        return telemetry_of(asked, decision(), layers, total_ms=total_ms, **given_)

    def test_it_says_what_was_decided_and_what_was_expected(self) -> None:
        made = self.make()
        assert (made.strategy_chosen, made.strategy_confidence) == ("parallel", 0.7)
        assert made.estimated_latency_ms == 50.0
        assert made.probability == 1.0

    def test_the_error_is_relative_to_what_happened(self) -> None:
        assert self.make(total_ms=40.0).estimation_error_pct == pytest.approx(25.0)
        assert self.make(total_ms=100.0).estimation_error_pct == pytest.approx(50.0)

    def test_an_answer_in_no_time_has_no_error(self) -> None:
        assert self.make(total_ms=0.0).estimation_error_pct == 0.0

    def test_a_cached_layer_is_a_cache_hit(self) -> None:
        assert self.make().cache_hit

    def test_it_carries_the_longest_wait_in_a_queue(self) -> None:
        assert self.make().queue_wait_ms == 9.0

    def test_coverage_is_the_share_of_layers_that_are_ok(self) -> None:
        layers = [outcome("a"), outcome("b", status="timeout")]
        made = telemetry_of(context(), decision(), layers, at_ms=0, total_ms=1.0, success=False)
        assert made.coverage == 0.5
        assert not made.success

    def test_it_carries_no_params(self) -> None:
        assert "params" not in msgspec.json.encode(self.make()).decode()

    def test_it_survives_the_wire(self) -> None:
        made = replace(self.make(hedges=2), parallel_speedup=1.5)
        assert msgspec.json.decode(msgspec.json.encode(made), type=ExecutionTelemetry) == made


class TestBatches:
    def test_nothing_recorded_is_nothing_sent(self, collector: ExecutionTelemetryCollector) -> None:
        assert collector.take_batch() is None

    def test_batches_are_numbered(self, collector: ExecutionTelemetryCollector) -> None:
        numbers = []
        for _ in range(3):
            collect(collector, record(AB))
            batch = collector.take_batch()
            assert batch is not None
            numbers.append((batch.instance, batch.sequence))
        assert numbers == [("me", 1), ("me", 2), ("me", 3)]

    def test_equal_queries_of_a_second_are_one_row_however_many(
        self, collector: ExecutionTelemetryCollector
    ) -> None:
        collect(collector, record(AB), times=500)
        batch = collector.take_batch()
        assert batch is not None
        assert (len(batch.rows.layers), len(batch.rows.plans), len(batch.rows.queries)) == (2, 1, 1)
        assert batch.rows.queries[0].count == 500
        assert batch.rows.layers[0].asked == 500

    def test_a_batch_survives_the_wire(self, collector: ExecutionTelemetryCollector) -> None:
        collect(collector, record(AB, explored=True, context=context()), record({"a": 3.0}))
        batch = collector.take_batch()
        assert msgspec.json.decode(msgspec.json.encode(batch), type=TelemetryBatch) == batch

    def test_explored_records_ride_along_raw(self, collector: ExecutionTelemetryCollector) -> None:
        collect(collector, record(AB, query="plain"), record(AB, query="tried", explored=True))
        batch = collector.take_batch()
        assert batch is not None
        assert [(one.query, one.sampled) for one in batch.sampled] == [("tried", 1.0)]

    def test_a_share_of_the_others_does_and_says_which_share(self) -> None:
        collector = ExecutionTelemetryCollector(sample=0.1)
        found = []
        for number in range(2_000):
            collect(collector, record(AB, query=f"id-{number}"))
            if number % 100 == 99 and (batch := collector.take_batch()) is not None:
                found += batch.sampled
        assert 140 < len(found) < 260
        assert {one.sampled for one in found} == {0.1}

    def test_raw_records_in_a_batch_are_bounded(
        self, collector: ExecutionTelemetryCollector
    ) -> None:
        collect(collector, record(AB, explored=True), times=10 * MAX_SAMPLED)
        batch = collector.take_batch()
        assert batch is not None
        assert len(batch.sampled) == MAX_SAMPLED
        assert batch.rows.queries[0].count == 10 * MAX_SAMPLED

    def test_what_nobody_fetches_is_dropped_and_counted(self) -> None:
        collector = ExecutionTelemetryCollector(sample=0.0)
        for number in range(5_000):
            collect(collector, record({f"l{number % 1_000}": 1.0}, at_ms=number * 1_000))
        batch = collector.take_batch()
        assert batch is not None
        counted = sum(row.count for row in batch.rows.queries)
        assert batch.dropped > 0
        assert counted + batch.dropped == 5_000
        assert batch.rows.count <= 4_000

    def test_it_learns_from_its_own_before_anything_is_sent(self) -> None:
        pupil = Pupil()
        for _ in range(SETTLE):
            pupil.collector.record(record(AB, at_ms=SETTLE_MS))
        assert pupil.profiler.samples("a") == pytest.approx(SETTLE)

    def test_when_much_happens_it_learns_from_all_of_it_every_so_often(self) -> None:
        pupil, known = Pupil(), []
        for number in range(1_000):
            pupil.collector.record(record(AB, at_ms=60_000 + number // 10))
            known.append(round(pupil.profiler.samples("a")))
        assert sorted(set(known)) == [1, 1 + 10 * SETTLE_MS]
        pupil.collector.settle()
        assert pupil.profiler.samples("a") == pytest.approx(1_000)

    @pytest.mark.parametrize("per_second", [1, 10, 100, 300])
    def test_below_that_rate_it_learns_from_every_sixteen(self, per_second: int) -> None:
        pupil, lag = Pupil(), []
        for number in range(2_000):
            before = pupil.profiler.revision
            pupil.collector.record(record(AB, at_ms=60_000 + number * 1_000 // per_second))
            lag.append(0 if pupil.profiler.revision != before else lag[-1] + 1)
        assert max(lag) == min(per_second, SETTLE) - 1

    def test_when_little_happens_it_learns_each_second(self) -> None:
        pupil = Pupil()
        pupil.collector.record(record(AB, at_ms=1_000))
        pupil.collector.record(record(AB, at_ms=2_000))
        assert pupil.profiler.samples("a") > 0


class TestFolding:
    def batches(self) -> list[TelemetryBatch]:
        makers = [ExecutionTelemetryCollector(f"i{n}", sample=0.0) for n in range(3)]
        found = []
        for number in range(15):
            maker = makers[number % 3]
            took = {"a": 10.0 + number, "b": 3.0} if number % 2 else {"b": 9.0 + number}
            collect(maker, record(took, at_ms=number * 700, novel=number < 4))
            batch = maker.take_batch()
            assert batch is not None
            found.append(batch)
        return found

    def learned(self, batches: Sequence[TelemetryBatch]) -> list[object]:
        pupil = Pupil(instance="reader")
        for batch in batches:
            pupil.collector.fold(batch)
        profiler, collector = pupil.profiler, pupil.collector
        return [
            [profiler.latency_ms(name) for name in "abc"],
            [profiler.samples(name, "parallel") for name in "ab"],
            pupil.graph.get_layer_coupling_score("a", "b"),
            collector.get_decision_accuracy(),
            collector.get_strategy_effectiveness(),
            collector.get_query_type_insights(),
            collector.get_performance_trend(),
        ]

    @settings(max_examples=50)
    @given(data=st.data())
    def test_any_order_teaches_the_same(self, data: st.DataObject) -> None:
        batches = self.batches()
        assert self.learned(data.draw(st.permutations(batches))) == self.learned(batches)

    @settings(max_examples=50)
    @given(data=st.data())
    def test_a_batch_counts_once_however_often_it_is_read(self, data: st.DataObject) -> None:
        batches = self.batches()
        again = data.draw(st.lists(st.sampled_from(batches), max_size=10))
        assert self.learned([*batches, *again]) == self.learned(batches)

    def test_readers_learn_what_the_writer_learned(self) -> None:
        writer, reader = Pupil(instance="writer"), Pupil(instance="reader")
        for number in range(200):
            writer.collector.record(record({"a": 10.0 + number, "b": 5.0}, at_ms=number * 100))
            if number % 50 == 49:
                batch = writer.collector.take_batch()
                assert batch is not None
                assert reader.collector.fold(batch)
        assert reader.profiler.latency_ms("a") == writer.profiler.latency_ms("a")
        assert reader.graph.stats() == writer.graph.stats()

    def test_own_batches_read_back_are_not_counted_again(self) -> None:
        pupil = Pupil(instance="me")
        pupil.collector.record(record(AB))
        batch = pupil.collector.take_batch()
        assert batch is not None
        assert not pupil.collector.fold(batch)
        assert pupil.profiler.samples("a") == 1

    def test_what_is_spent_on_reading_others_is_bounded(self) -> None:
        pupil = Pupil(instance="me")
        rows = Rows(layers=tuple(LayerSum(0, "t", "parallel", "a", 1, 1, 1) for _ in range(1_000)))
        batches = [TelemetryBatch("other", n, rows) for n in range(READ_ROWS // 1_000 + 5)]
        assert sum(pupil.collector.fold(batch) for batch in batches) == READ_ROWS // 1_000
        assert pupil.collector.skipped_rows == 5_000

    def test_the_next_interval_reads_on(self) -> None:
        pupil = Pupil(instance="me")
        rows = Rows(layers=(LayerSum(0, "t", "parallel", "a", 1, 1, 1),) * READ_ROWS)
        assert pupil.collector.fold(TelemetryBatch("other", 1, rows))
        assert not pupil.collector.fold(TelemetryBatch("other", 2, rows))
        pupil.collector.take_batch()
        assert pupil.collector.fold(TelemetryBatch("other", 2, rows))

    def test_the_recent_past_is_replayed_whole(self) -> None:
        pupil = Pupil(instance="new")
        rows = Rows(layers=(LayerSum(0, "t", "parallel", "a", 1, 1, 1),) * READ_ROWS)
        past = [TelemetryBatch("other", n, rows) for n in range(3)]
        assert pupil.collector.replay([*past, *past]) == 3


class TestSeen:
    def test_each_batch_is_new_once(self) -> None:
        seen = SeenBatches()
        assert [seen.first_time("a", n) for n in (1, 2, 1, 3, 2)] == [
            True,
            True,
            False,
            True,
            False,
        ]

    def test_instances_are_told_apart(self) -> None:
        seen = SeenBatches()
        assert seen.first_time("a", 1)
        assert seen.first_time("b", 1)

    def test_reading_may_begin_anywhere(self) -> None:
        seen = SeenBatches()
        assert [seen.first_time("a", n) for n in (900, 899, 900)] == [True, True, False]

    def test_what_is_far_behind_counts_as_read(self) -> None:
        seen = SeenBatches()
        assert seen.first_time("a", 5 * WINDOW)
        assert not seen.first_time("a", 3 * WINDOW)


class TestAnalytics:
    def test_accuracy_is_one_for_estimates_that_come_true(
        self, collector: ExecutionTelemetryCollector
    ) -> None:
        collect(collector, record(AB), times=9)
        found = collector.get_decision_accuracy()["parallel"]
        assert found == {"plans": 9, "accuracy": 1.0, "error_pct": 0.0, "bias": 1.0}

    def test_accuracy_falls_with_the_error(self, collector: ExecutionTelemetryCollector) -> None:
        collect(collector, record({"a": 40.0}, estimated_ms=20.0), times=9)
        assert collector.get_decision_accuracy()["overall"]["accuracy"] == pytest.approx(
            0.5, abs=0.01
        )

    def test_bias_says_how_much_slower_than_the_formula_an_arm_is(
        self, collector: ExecutionTelemetryCollector
    ) -> None:
        collect(collector, record({"a": 40.0}, formula_ms=20.0), times=9)
        assert collector.get_decision_accuracy()["parallel"]["bias"] == pytest.approx(2.0, rel=0.01)

    def test_the_error_of_types_never_seen_is_reported_apart(
        self, collector: ExecutionTelemetryCollector
    ) -> None:
        collect(collector, record(AB), times=9)
        collect(collector, record({"a": 40.0}, estimated_ms=10.0, novel=True), times=3)
        found = collector.get_decision_accuracy()
        assert found["novel"]["plans"] == 3
        assert found["novel"]["error_pct"] == pytest.approx(300, rel=0.01)
        assert found["overall"]["error_pct"] == 0.0

    def test_effectiveness_compares_strategies(
        self, collector: ExecutionTelemetryCollector
    ) -> None:
        collect(collector, record(AB, arm="sequential", success=False), record(AB), times=5)
        found = collector.get_strategy_effectiveness()
        assert found["sequential"]["mean_ms"] == pytest.approx(70.0)
        assert found["parallel"]["mean_ms"] == pytest.approx(40.0)
        assert (found["sequential"]["success_rate"], found["parallel"]["success_rate"]) == (
            0.0,
            1.0,
        )

    def test_speed_up_comes_from_baselines_of_the_same_layers(
        self, collector: ExecutionTelemetryCollector
    ) -> None:
        collect(collector, record(AB, arm="sequential"), record(AB), times=5)
        assert collector.get_strategy_effectiveness()["parallel"]["speedup"] == pytest.approx(1.75)

    def test_without_a_measured_baseline_there_is_no_speed_up(
        self, collector: ExecutionTelemetryCollector
    ) -> None:
        collect(collector, record(AB), record({"a": 500.0}, arm="sequential"), times=9)
        assert collector.get_strategy_effectiveness()["parallel"]["speedup"] is None

    def test_a_single_answer_gets_its_speed_up_over_the_baseline(self) -> None:
        collector = ExecutionTelemetryCollector("me", sample=1.0)
        quick, alone = record(AB, total_ms=35.0), record(AB, arm="sequential")
        collect(collector, quick)
        collect(collector, alone, times=5)
        collector.settle()
        collect(collector, quick)
        batch = collector.take_batch()
        assert batch is not None
        gains = [(one.parallel_speedup, one.distributed_speedup) for one in batch.sampled]
        assert gains == [(None, None)] * 6 + [(pytest.approx(2.0), None)]

    def test_insights_name_the_fastest_strategy_of_each_type(
        self, collector: ExecutionTelemetryCollector
    ) -> None:
        collect(collector, record(AB, arm="sequential"), record(AB), times=5)
        collect(collector, record({"a": 9.0}, arm="distributed", type_="temporal"), times=5)
        found = collector.get_query_type_insights()
        assert (found["factual"]["optimal"], found["temporal"]["optimal"]) == (
            "parallel",
            "distributed",
        )
        assert found["factual"]["queries"] == 10

    def test_a_strategy_tried_too_rarely_is_not_called_optimal(
        self, collector: ExecutionTelemetryCollector
    ) -> None:
        collect(collector, record(AB, arm="sequential"), times=5)
        collect(collector, record({"a": 1.0}))
        assert collector.get_query_type_insights()["factual"]["optimal"] == "sequential"

    @pytest.mark.parametrize(
        ("later_ms", "word"), [(80.0, "degrading"), (20.0, "improving"), (40.0, "stable")]
    )
    def test_the_trend_compares_later_with_earlier_minutes(
        self, collector: ExecutionTelemetryCollector, later_ms: float, word: str
    ) -> None:
        for minute in range(10):
            took = 40.0 if minute < 5 else later_ms
            collect(collector, record({"a": took}, at_ms=minute * MINUTE_MS), times=3)
        assert collector.get_performance_trend()["trend"] == word

    def test_more_failures_are_a_degradation_even_if_they_are_fast(
        self, collector: ExecutionTelemetryCollector
    ) -> None:
        for minute in range(10):
            one = record({"a": 40.0}, at_ms=minute * MINUTE_MS, success=minute < 5)
            collect(collector, one, times=3)
        assert collector.get_performance_trend()["trend"] == "degrading"

    def test_one_minute_has_no_trend(self, collector: ExecutionTelemetryCollector) -> None:
        collect(collector, record(AB), times=99)
        assert collector.get_performance_trend()["trend"] == "unknown"


class TestRecommendations:
    def collector(self, **values: Any) -> ExecutionTelemetryCollector:
        return ExecutionTelemetryCollector(sample=0.0, settings=values)

    def test_none_are_made_without_evidence(self) -> None:
        found = self.collector(**{"worker.slots": 32, "select.distributed_threshold": 500.0})
        assert found.get_strategy_recommendations() == []

    def test_what_is_well_set_is_left_alone(self) -> None:
        collector = self.collector(**{"worker.slots": 32, "layers.a.ttl_ms": 1_000})
        refreshed = [outcome("a", changed=number < 5) for number in range(30)]
        for one in refreshed:
            collect(collector, record({"a": 40.0}, layers_override=(one,)))
        assert collector.get_strategy_recommendations() == []

    @pytest.mark.parametrize(("changed", "proposed"), [(False, 2_000), (True, 500)])
    def test_a_ttl_follows_the_share_of_refreshes_that_changed_something(
        self, changed: bool, proposed: int
    ) -> None:
        collector = self.collector(**{"layers.a.ttl_ms": 1_000})
        collect(
            collector,
            record({"a": 40.0}, layers_override=(outcome("a", changed=changed),)),
            times=25,
        )
        (found,) = collector.get_strategy_recommendations()
        assert (found.setting, found.present, found.proposed) == (
            "layers.a.ttl_ms",
            1_000,
            proposed,
        )
        assert "25 refreshes" in found.evidence

    def test_long_queues_call_for_more_slots(self) -> None:
        collector = self.collector(**{"worker.slots": 32})
        collect(collector, record({"a": 40.0}, queue_wait_ms=30.0), times=25)
        (found,) = collector.get_strategy_recommendations()
        assert (found.setting, found.proposed) == ("worker.slots", 48)
        assert "75%" in found.evidence

    def test_a_threshold_moves_to_where_the_measured_layer_sets_cost_least(self) -> None:
        collector = self.collector(**{"select.distributed_threshold": 500.0})
        for name, alone, spread in (("a", 60.0, 90.0), ("b", 300.0, 120.0), ("c", 450.0, 150.0)):
            collect(
                collector,
                record({name: alone}, arm="sequential"),
                record({name: spread}, arm="distributed"),
                times=9,
            )
        (found,) = collector.get_strategy_recommendations()
        assert found.setting == "select.distributed_threshold"
        assert 60 < found.proposed < 300
        assert "3 layer sets" in found.evidence

    def test_shadow_that_would_have_gained_calls_for_learned(self) -> None:
        collector = self.collector(**{"select.mode": "shadow"})
        one = record({"a": 100.0}, shadow="distributed", shadow_ms=60.0)
        collect(collector, one, times=20)
        (found,) = collector.get_strategy_recommendations()
        assert (found.setting, found.proposed) == ("select.mode", "learned")
        assert "40%" in found.evidence

    def test_shadow_that_would_have_gained_nothing_does_not(self) -> None:
        collector = self.collector(**{"select.mode": "shadow"})
        collect(collector, record({"a": 100.0}, shadow="parallel", shadow_ms=100.0), times=20)
        assert collector.get_strategy_recommendations() == []

    def test_only_settings_that_are_given_are_spoken_of(self) -> None:
        collector = self.collector()
        collect(collector, record({"a": 40.0}, queue_wait_ms=30.0), times=25)
        assert collector.get_strategy_recommendations() == []


def test_an_answer_cut_short_teaches_no_plan(collector: ExecutionTelemetryCollector) -> None:
    whole = record(AB)
    skipped = replace(whole.layers[1], status="skipped")
    collect(collector, replace(whole, layers=(whole.layers[0], skipped)))
    batch = collector.take_batch()
    assert batch is not None
    assert batch.rows.plans == ()
    assert [row.layer for row in batch.rows.layers] == ["a"]
