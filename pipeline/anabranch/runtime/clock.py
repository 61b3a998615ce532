"""Time, injected: the loop's clock, the local wall clock, and the broker's clock as seen here.

Deadlines are absolute on the broker's clock (a query's LogAppendTime plus its timeout), so every
process must know what time it is *there*. `BrokerClock` learns that from the process's own
health records, read back: the broker stamped them somewhere between send and ack.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

__all__ = ["BrokerClock", "Clock", "SystemClock", "moved"]

_WINDOW_MS: Final = 60_000.0
_SLACK_MS: Final = 50.0
_STEP_MS: Final = 5_000.0
_PLAUSIBLE_MS: Final = 120_000.0
"""Further from now than that no time lies that anybody waits for."""


class Clock(Protocol):
    """The two clocks of a process."""

    def monotonic(self) -> float:
        """Seconds on the running loop's clock, as `loop.time()`; never set by anybody."""
        ...

    def time_ms(self) -> float:
        """Milliseconds since the Unix epoch, as this machine has it: may be wrong, may jump."""
        ...


class SystemClock:
    """The real clocks."""

    monotonic = staticmethod(time.monotonic)
    """What `loop.time()` is on asyncio and on uvloop, for a sixth of the price."""

    def time_ms(self) -> float:
        return time.time() * 1000.0


class _Sample(NamedTuple):
    taken_ms: float
    round_trip_ms: float
    offset_ms: float


class BrokerClock:
    """What time it is on the broker's clock.

    The offset of a sample is the append time less the midpoint of send and ack (Cristian's
    algorithm), wrong by half the round trip at most; the smallest round trip of the last minute
    wins. Send and ack are taken on the monotonic clock, so once a sample exists the local wall
    clock plays no part: it may be an hour off, or jump. Without a sample, and where records carry
    CreateTime (then samples are not to be fed), this is the local wall clock.

    Args:
        on_set: called when the broker's clock turns out to have been set, with the ms by which.
    """

    def __init__(self, clock: Clock, on_set: Callable[[float], object] | None = None) -> None:
        self._clock = clock
        self._on_set = on_set
        self._samples: list[_Sample] = []
        self._offset_ms: float | None = None
        self._last_ms = float("-inf")

    def sample(self, sent: float, acked: float, append_ms: float) -> None:
        """Learn from an own record that was read back.

        Args:
            sent: `Clock.monotonic()` before the record was handed to the producer.
            acked: `Clock.monotonic()` when its acknowledgement arrived.
            append_ms: the record's LogAppendTime as read (never the one in the ack).
        """
        if self._offset_ms is None:
            self._last_ms = float("-inf")  # what was said until now was another clock's
        sent_ms, acked_ms = sent * 1000.0, acked * 1000.0
        new = _Sample(acked_ms, acked_ms - sent_ms, append_ms - (sent_ms + acked_ms) / 2)
        self._samples = [
            old
            for old in self._samples
            if new.taken_ms - old.taken_ms <= _WINDOW_MS and _agree(old, new)
        ]
        self._samples.append(new)
        before_ms = self._offset_ms
        best = min(self._samples, key=lambda sample: sample.round_trip_ms)
        self._offset_ms = best.offset_ms
        if before_ms is not None and self._on_set is not None:
            moved_ms = best.offset_ms - before_ms
            if abs(moved_ms) >= _STEP_MS:
                self._on_set(moved_ms)

    def now_ms(self) -> float:
        """Milliseconds since the Unix epoch on the broker's clock.

        Never goes backwards: a correction makes it hold still. Only where a clock was *set*
        (seconds apart from what was believed) it follows at once, since holding still for so
        long would stop every deadline.
        """
        if self._offset_ms is None:
            now = self._clock.time_ms()
        else:
            now = self._clock.monotonic() * 1000.0 + self._offset_ms
        if 0.0 < self._last_ms - now < _STEP_MS:
            return self._last_ms
        self._last_ms = now
        return now


def moved(at_ms: float, moved_ms: float, now_ms: float) -> float:
    """A time that lies ahead, now that the clock was set by `moved_ms` to `now_ms`.

    What is read between the setting and its discovery is on the new clock already.
    """
    plausible = abs(at_ms - (now_ms - moved_ms)) < _PLAUSIBLE_MS
    return at_ms + moved_ms if plausible else at_ms


def _agree(old: _Sample, new: _Sample) -> bool:
    """Whether both can be true: if their intervals do not meet, the broker's clock was set."""
    apart_ms = abs(new.offset_ms - old.offset_ms)
    return apart_ms <= (new.round_trip_ms + old.round_trip_ms) / 2 + _SLACK_MS
