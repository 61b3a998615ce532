"""When a query was asked, on the broker's clock, though another broker stamped it.

Each partition's leader stamps by its own clock, and processes measure that of `health`'s leader.
Brokers are taken to agree until a record proves otherwise: it was appended before it was read, and
after its log was seen to end where it lies. A stamp outside of that is off by at least so much,
and so are its neighbours.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from anabranch.kafka.transport import LOG_APPEND_TIME, Record

__all__ = ["Stamps"]

_SLACK_MS: Final = 100.0
"""Clocks that agree, and measuring them, may seem to differ by so much."""
_MAX_ENDS: Final = 600


class _End(NamedTuple):
    offset: int
    at_ms: float


class Stamps:
    """The time stamps of one partition.

    Args:
        behind_ms: what the owner before found.
    """

    def __init__(self, behind_ms: float = 0.0) -> None:
        self.behind_ms = behind_ms
        """How far they are behind the broker's clock; negative if ahead; 0 if nothing proves it."""
        self.trusted = True
        """Whether they are the broker's at all."""
        self._ends: deque[_End] = deque(maxlen=_MAX_ENDS)

    def saw_end(self, offset: int, at_ms: float) -> None:
        """At that time (on the broker's clock) there was nothing at this offset or beyond."""
        if self._ends and self._ends[-1].offset >= offset:
            self._ends.pop()
        self._ends.append(_End(offset, at_ms))

    def shift(self, moved_ms: float) -> None:
        """The broker's clock was set by so much."""
        ends = [_End(end.offset, end.at_ms + moved_ms) for end in self._ends]
        self._ends.clear()
        self._ends.extend(ends)

    def asked_ms(self, record: Record, now_ms: float) -> float:
        """When a record was appended, as far as is known; records come in order.

        A stamp that is proven wrong counts from the first reading, as one that is not a broker's.
        """
        self.trusted = record.timestamp_type == LOG_APPEND_TIME
        if not self.trusted:
            return now_ms
        stamp_ms = record.timestamp + self.behind_ms
        early = stamp_ms < self._not_before_ms(record.offset) - _SLACK_MS
        late_by_ms = stamp_ms - now_ms
        if early or late_by_ms > (0.0 if self.behind_ms else _SLACK_MS):
            self.behind_ms -= late_by_ms
            if abs(self.behind_ms) <= _SLACK_MS:
                self.behind_ms = 0.0
        return now_ms if early else min(stamp_ms, now_ms)

    def _not_before_ms(self, offset: int) -> float:
        """The last time at which the log was seen to end there or before."""
        ends = self._ends
        while len(ends) > 1 and ends[1].offset <= offset:
            ends.popleft()
        return ends[0].at_ms if ends and ends[0].offset <= offset else float("-inf")
