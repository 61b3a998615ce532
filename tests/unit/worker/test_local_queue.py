"""Order and pauses of a worker's local queue."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.contract.events import PRIORITIES, Priority
from anabranch.worker.local_queue import LocalQueue, Throttle

priorities = st.sampled_from(PRIORITIES)


def drain(queue: LocalQueue[int], now_ms: float) -> list[int]:
    return [queue.take(now_ms)[0] for _ in range(len(queue))]


@given(st.lists(priorities))
def test_highest_priority_first_and_first_come_within_it(given: Sequence[Priority]) -> None:
    queue: LocalQueue[int] = LocalQueue(max_wait_ms=1_000)
    for n, priority in enumerate(given):
        queue.put(priority, n, now_ms=0)
    expected = sorted(range(len(given)), key=lambda n: (PRIORITIES.index(given[n]), n))
    assert drain(queue, now_ms=0) == expected


def test_low_is_taken_before_critical_once_it_waited_its_bound() -> None:
    queue: LocalQueue[str] = LocalQueue(max_wait_ms=1_000)
    queue.put("low", "old", now_ms=0)
    queue.put("critical", "young", now_ms=999)
    assert queue.take(now_ms=999) == ("young", 0)
    queue.put("critical", "younger", now_ms=1_000)
    assert queue.take(now_ms=1_000) == ("old", 1_000)


def test_under_constant_critical_load_low_still_comes_through() -> None:
    queue: LocalQueue[str] = LocalQueue(max_wait_ms=50)
    queue.put("low", "patient", now_ms=0)
    waited = 0.0
    for now_ms in range(200):
        queue.put("critical", "busy", now_ms=now_ms)
        entry, waited = queue.take(now_ms)
        if entry == "patient":
            break
    assert entry == "patient"
    assert waited == 50


def test_taking_from_an_empty_queue_is_an_error() -> None:
    with pytest.raises(IndexError):
        LocalQueue[int](1).take(0)


def test_low_pauses_first_and_critical_last() -> None:
    throttle = Throttle(100)
    order: list[Priority] = []
    for depth in range(101):
        order += throttle.update(depth)[0]
    assert order == ["low", "medium", "high", "critical"]


def test_a_paused_priority_resumes_only_well_below_its_threshold() -> None:
    throttle = Throttle(100)
    assert throttle.update(50) == (["low"], [])
    assert throttle.update(38) == ([], [])
    assert throttle.update(37) == ([], ["low"])


@given(st.lists(st.integers(0, 200), min_size=1))
def test_pauses_and_resumes_add_up_to_what_is_paused(depths: list[int]) -> None:
    throttle = Throttle(100)
    paused: set[Priority] = set()
    for depth in depths:
        to_pause, to_resume = throttle.update(depth)
        assert not paused & set(to_pause)
        assert set(to_resume) <= paused
        paused = (paused | set(to_pause)) - set(to_resume)
        assert paused == throttle.paused
        if depth >= 100:
            assert "critical" in paused
