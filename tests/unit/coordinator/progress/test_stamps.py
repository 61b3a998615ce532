"""Brokers whose clocks differ: when a query was asked, as far as that can be known."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from records import FakeRecord

from anabranch.coordinator.progress.stamps import Stamps
from anabranch.kafka.transport import CREATE_TIME

SLACK_MS = 100.0
HOUR_MS = 3_600_000.0
START_MS = 1_700_000_000_000.0

skews = st.floats(-HOUR_MS, HOUR_MS).map(round)
arrivals = st.lists(st.tuples(st.integers(0, 900), st.integers(0, 50)), min_size=1, max_size=30)
"""Since the last look at the end of the log, and until it is read, in milliseconds."""


class Partition:
    """A log whose leader's clock is off, looked at each second."""

    def __init__(self, behind_ms: float = 0.0) -> None:
        self.stamps = Stamps(behind_ms)
        self.looked_ms = START_MS
        self._end = 0

    def arrive(self, skew_ms: float, after_ms: float, delay_ms: float) -> tuple[float, float]:
        """When a query was asked, and when that is taken to be."""
        self.looked_ms += 1_000
        self.stamps.saw_end(self._end, self.looked_ms)
        asked_ms = self.looked_ms + after_ms
        record = FakeRecord(b"", offset=self._end, timestamp=int(asked_ms + skew_ms))
        self._end += 1
        return asked_ms, self.stamps.asked_ms(record, asked_ms + delay_ms)


@given(arrivals)
def test_clocks_that_agree_are_believed_to_the_millisecond(
    arriving: list[tuple[int, int]],
) -> None:
    log = Partition()
    for after_ms, delay_ms in arriving:
        asked_ms, taken_ms = log.arrive(0, after_ms, delay_ms)
        assert taken_ms == asked_ms
    assert log.stamps.behind_ms == 0


@given(skews, skews, arrivals, arrivals)
def test_no_query_is_taken_for_older_than_the_last_look_or_for_later_than_now(
    skew_ms: float, other_ms: float, first: list[tuple[int, int]], then: list[tuple[int, int]]
) -> None:
    """Whatever the leader's clock shows, and whoever leads next."""
    log = Partition()
    for off_ms, arriving in ((skew_ms, first), (other_ms, then)):
        for after_ms, delay_ms in arriving:
            asked_ms, taken_ms = log.arrive(off_ms, after_ms, delay_ms)
            assert log.looked_ms - SLACK_MS <= taken_ms <= asked_ms + delay_ms


@given(skews.filter(lambda ms: abs(ms) > 1_200), arrivals)
def test_a_clock_that_is_off_is_measured_by_the_first_query(
    skew_ms: float, arriving: list[tuple[int, int]]
) -> None:
    log = Partition()
    worst_ms = 0.0
    for after_ms, delay_ms in arriving:
        worst_ms = max(worst_ms, delay_ms)
        asked_ms, taken_ms = log.arrive(skew_ms, after_ms, delay_ms)
        assert abs(taken_ms - asked_ms) <= worst_ms
    assert abs(log.stamps.behind_ms + skew_ms) <= worst_ms


def test_whoever_is_next_knows_it_from_the_commit() -> None:
    before = Partition()
    before.arrive(-HOUR_MS, 0, 5)
    stamps = Stamps(round(before.stamps.behind_ms))
    old = FakeRecord(b"", timestamp=int(START_MS - HOUR_MS))
    assert stamps.asked_ms(old, START_MS + 30_000) == START_MS + 5


def test_a_backlog_is_as_old_as_its_stamps_say() -> None:
    stamps = Stamps()
    stamps.saw_end(10, START_MS)
    old = FakeRecord(b"", offset=9, timestamp=int(START_MS - HOUR_MS))
    assert stamps.asked_ms(old, START_MS + 1) == START_MS - HOUR_MS
    assert stamps.behind_ms == 0


def test_a_stamp_of_the_future_shortens_nothing_and_lengthens_nothing() -> None:
    stamps = Stamps()
    ahead = FakeRecord(b"", timestamp=int(START_MS + HOUR_MS))
    assert stamps.asked_ms(ahead, START_MS) == START_MS
    assert stamps.asked_ms(ahead._replace(offset=1), START_MS) == START_MS


def test_what_no_broker_stamped_is_asked_when_it_is_read() -> None:
    stamps = Stamps()
    own = FakeRecord(b"", timestamp=1, timestamp_type=CREATE_TIME)
    assert stamps.asked_ms(own, START_MS) == START_MS
    assert not stamps.trusted
