"""The profiler: latency, success and results of single layers."""

from __future__ import annotations

import pytest
from lessons import MINUTE_MS, Pupil, outcome, record

from anabranch.learn.profiler import PRIOR_LATENCY_MS, LayerProfiler


@pytest.fixture
def pupil() -> Pupil:
    return Pupil()


def test_latency_is_what_was_measured_in_the_layer_without_the_queue(pupil: Pupil) -> None:
    waited = outcome("a", took_ms=40.0, queued_ms=500.0, elapsed_ms=543.0)
    pupil.teach(record({"a": 40.0}, layers_override=(waited,)))
    assert pupil.profiler.latency_ms("a") == pytest.approx(40, rel=0.01)


def test_layers_without_data_get_the_median_of_the_others(pupil: Pupil) -> None:
    pupil.teach(record({"a": 10.0, "b": 80.0, "c": 900.0}), times=3)
    assert pupil.profiler.latency_ms("new") == pytest.approx(80, rel=0.01)


def test_without_any_data_there_is_a_prior_that_is_not_zero() -> None:
    assert LayerProfiler().latency_ms("a") == PRIOR_LATENCY_MS > 0


def test_one_outlier_hardly_moves_a_latency(pupil: Pupil) -> None:
    pupil.teach(record({"a": 40.0}), times=49)
    pupil.teach(record({"a": 800.0}))
    assert pupil.profiler.latency_ms("a") < 45


def test_a_layer_that_becomes_ten_times_slower_is_known_within_a_hundred_answers(
    pupil: Pupil,
) -> None:
    pupil.teach(record({"a": 40.0}), times=50)
    for second in range(1, 11):
        pupil.teach(record({"a": 400.0}, at_ms=second * 1_000), times=15)
    assert pupil.profiler.latency_ms("a") > 300


def test_arms_are_known_apart(pupil: Pupil) -> None:
    pupil.teach(record({"a": 10.0}, arm="sequential"), record({"a": 90.0}, arm="parallel"), times=3)
    assert pupil.profiler.latency_ms("a", "sequential") == pytest.approx(10, rel=0.01)
    assert pupil.profiler.latency_ms("a", "parallel") == pytest.approx(90, rel=0.01)


def test_an_arm_without_data_has_the_layers_latency(pupil: Pupil) -> None:
    pupil.teach(record({"a": 10.0}))
    assert pupil.profiler.latency_ms("a", "distributed") == pytest.approx(10, rel=0.01)


def test_success_is_the_share_of_requests_that_were_answered(pupil: Pupil) -> None:
    failed = outcome("a", status="error", took_ms=1.0)
    pupil.teach(record({"a": 40.0}), record({"a": 40.0}, layers_override=(failed,)), times=4)
    assert pupil.profiler.success_rate("a") == pytest.approx(0.5)


def test_a_failures_time_says_nothing_of_the_latency(pupil: Pupil) -> None:
    failed = outcome("a", status="error", took_ms=0.1)
    pupil.teach(record({"a": 40.0}), record({"a": 40.0}, layers_override=(failed,)), times=4)
    assert pupil.profiler.latency_ms("a") == pytest.approx(40, rel=0.01)


def test_a_timeout_counts_as_the_time_it_took_at_least(pupil: Pupil) -> None:
    late = outcome("a", status="timeout", took_ms=1_000.0)
    pupil.teach(record({"a": 40.0}, layers_override=(late,)), times=4)
    assert pupil.profiler.latency_ms("a") == pytest.approx(1_000, rel=0.01)


def test_what_was_never_asked_is_not_counted(pupil: Pupil) -> None:
    skipped = outcome("a", status="skipped")
    cached = outcome("b", "cache")
    pupil.teach(record({"a": 1.0}, layers_override=(skipped, cached)), times=4)
    assert pupil.profiler.samples("a") == pupil.profiler.samples("b") == 0
    assert pupil.profiler.success_rate("a") == 1.0


def test_results_are_counted_by_answer(pupil: Pupil) -> None:
    pupil.teach(record({"a": 40.0}, layers_override=(outcome("a", count=4),)))
    pupil.teach(record({"a": 40.0}, layers_override=(outcome("a", count=8),)))
    assert pupil.profiler.result_count("a") == pytest.approx(6)


def test_old_measurements_count_less(pupil: Pupil) -> None:
    for minute in range(30):
        pupil.teach(record({"a": 40.0}, at_ms=minute * MINUTE_MS), times=10)
    assert pupil.profiler.samples("a") < 100
