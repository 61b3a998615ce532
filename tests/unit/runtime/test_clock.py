"""The broker's clock as seen from a process: right within half a round trip, never backwards."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anabranch.runtime.clock import BrokerClock, SystemClock

BROKER_EPOCH_MS = 1_700_000_000_000.0
HOUR_MS = 3_600_000.0


class Hand:
    """A clock that is moved by hand; the wall clock is wrong by `wall_error_ms`."""

    def __init__(self) -> None:
        self.at = 1000.0
        self.wall_error_ms = 0.0

    def monotonic(self) -> float:
        return self.at

    def time_ms(self) -> float:
        return self.true_ms() + self.wall_error_ms

    def true_ms(self) -> float:
        """What the broker's clock shows."""
        return BROKER_EPOCH_MS + self.at * 1000.0


def take_sample(clock: BrokerClock, hand: Hand, to_ms: float = 0, back_ms: float = 0) -> None:
    """A record travels to the broker, is stamped, and its ack travels back."""
    sent = hand.at
    hand.at += to_ms / 1000
    append_ms = hand.true_ms()
    hand.at += back_ms / 1000
    clock.sample(sent, hand.at, append_ms)


def test_without_a_sample_it_is_the_local_clock() -> None:
    hand = Hand()
    hand.wall_error_ms = 123.0
    assert BrokerClock(hand).now_ms() == hand.time_ms()


def test_a_sample_corrects_a_local_clock_that_is_an_hour_off() -> None:
    hand = Hand()
    hand.wall_error_ms = HOUR_MS
    clock = BrokerClock(hand)
    clock.now_ms()
    take_sample(clock, hand)
    assert clock.now_ms() == pytest.approx(hand.true_ms(), abs=0.01)


def test_the_first_sample_is_followed_at_once_by_a_local_clock_that_was_a_little_ahead() -> None:
    """Holding still until it is true made every query seem older than it was."""
    hand = Hand()
    hand.wall_error_ms = 700.0
    clock = BrokerClock(hand)
    clock.now_ms()
    take_sample(clock, hand)
    assert clock.now_ms() == pytest.approx(hand.true_ms(), abs=0.01)


@pytest.mark.parametrize("jump_ms", [HOUR_MS, -HOUR_MS])
def test_a_jump_of_the_local_clock_changes_nothing_once_a_sample_exists(jump_ms: float) -> None:
    hand = Hand()
    clock = BrokerClock(hand)
    take_sample(clock, hand, to_ms=2, back_ms=2)
    hand.wall_error_ms += jump_ms
    assert clock.now_ms() == pytest.approx(hand.true_ms(), abs=0.01)
    take_sample(clock, hand, to_ms=2, back_ms=2)
    assert clock.now_ms() == pytest.approx(hand.true_ms(), abs=0.01)


def test_the_smallest_round_trip_wins_over_a_later_slow_one() -> None:
    hand = Hand()
    clock = BrokerClock(hand)
    take_sample(clock, hand, to_ms=1, back_ms=1)
    take_sample(clock, hand, to_ms=0, back_ms=800)
    assert clock.now_ms() == pytest.approx(hand.true_ms(), abs=0.01)


def test_a_sample_counts_for_a_minute() -> None:
    hand = Hand()
    clock = BrokerClock(hand)
    take_sample(clock, hand, to_ms=1, back_ms=1)
    hand.at += 61
    take_sample(clock, hand, to_ms=0, back_ms=20)
    assert abs(clock.now_ms() - hand.true_ms()) == pytest.approx(10, abs=0.01)


def test_the_last_sample_serves_on_when_no_more_come() -> None:
    hand = Hand()
    clock = BrokerClock(hand)
    take_sample(clock, hand)
    hand.at += 86_400
    assert clock.now_ms() == pytest.approx(hand.true_ms(), abs=0.01)


def test_a_broker_clock_that_was_set_is_followed_at_once() -> None:
    hand = Hand()
    clock = BrokerClock(hand)
    take_sample(clock, hand)
    before = clock.now_ms()
    clock.sample(hand.at, hand.at + 0.1, hand.true_ms() - HOUR_MS)
    assert clock.now_ms() == pytest.approx(before - HOUR_MS, abs=100)


journeys = st.tuples(
    st.floats(0, 400),  # to the broker, ms
    st.floats(0, 400),  # and back
    st.floats(0, 30),  # pause before it, s
    st.floats(-2 * HOUR_MS, 2 * HOUR_MS),  # jump of the wall clock, ms
)


@given(st.lists(journeys, min_size=1, max_size=30))
def test_it_is_wrong_by_half_the_best_round_trip_at_most_and_never_goes_backwards(
    trips: list[tuple[float, float, float, float]],
) -> None:
    hand = Hand()
    clock = BrokerClock(hand)
    seen = float("-inf")
    taken: list[tuple[float, float]] = []
    for to_ms, back_ms, pause_s, jump_ms in trips:
        hand.at += pause_s
        if taken:
            now = clock.now_ms()
            assert now >= seen
            seen = now
        hand.wall_error_ms += jump_ms
        take_sample(clock, hand, to_ms, back_ms)
        taken.append((hand.at, to_ms + back_ms))
        fresh = [round_trip for at, round_trip in taken if hand.at - at <= 60]
        now = clock.now_ms()
        assert now >= seen
        # Holding still may keep an older error for a while, which was bounded likewise.
        assert now - hand.true_ms() >= -min(fresh) / 2 - 0.01
        assert now - hand.true_ms() <= 400 + 0.01
        seen = now


@given(st.lists(st.tuples(st.floats(0, 400), st.floats(0, 400)), min_size=1, max_size=20))
def test_where_nothing_was_read_in_between_the_error_is_half_the_best_round_trip(
    trips: list[tuple[float, float]],
) -> None:
    hand = Hand()
    clock = BrokerClock(hand)
    for to_ms, back_ms in trips:
        take_sample(clock, hand, to_ms, back_ms)
    best_ms = min(map(sum, trips))
    assert abs(clock.now_ms() - hand.true_ms()) <= best_ms / 2 + 0.01


async def test_the_system_clock_is_the_loop_and_the_wall() -> None:
    clock = SystemClock()
    loop = asyncio.get_running_loop()
    before = (loop.time(), time.time() * 1000)
    seen = (clock.monotonic(), clock.time_ms())
    after = (loop.time(), time.time() * 1000)
    assert before[0] <= seen[0] <= after[0]
    assert before[1] <= seen[1] <= after[1]
