"""Poison: a query that kills whoever starts it, found by starting suspects in small groups.

After two takeovers without progress (the oldest open query was not answered, whatever else was), or
one in the middle of a trial, those queries are suspects that the owner before may have had open. A
group of them is started only when the commit says that it is on trial. A group that survives clears
its queries, and the next one is twice as large, so a thousand innocent ones take a dozen commits;
of a group that its owner did not survive the next owner tries a half. One that was on trial alone
three times and never answered is quarantined.

A process tries one group at a time, of all its partitions: no suspect is to pay for what another
one did. Queries that are no suspects do not wait for any of this.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from anabranch.config.settings import CoordinatorConfig
from anabranch.coordinator.partitions.progress import Progress
from anabranch.kafka.transport import Record

__all__ = ["MAX_TRIALS", "PATIENCE", "Court", "Trials"]

PATIENCE = 2
"""Takeovers without progress that are still taken for bad luck."""
MAX_TRIALS = 3
MOST_TOGETHER = 250
"""Suspects of a group: all of it is started in one turn."""


class Court:
    """Whose suspects are on trial, among the partitions of a process, and what waits for it.

    Args:
        max_bytes: of suspects that wait: no owner before can have had more open.
    """

    def __init__(self, max_bytes: int = CoordinatorConfig().max_open_bytes) -> None:
        self._sitting: Trials | None = None
        self._queue: deque[Trials] = deque()
        self._left_bytes = max_bytes

    @property
    def has_room(self) -> bool:
        """Whether one more suspect, of any size, may wait."""
        return self._left_bytes > 0

    def keep(self, record: Record) -> None:
        """A suspect waits."""
        self._left_bytes -= len(record.value or b"")

    def release(self, records: Iterable[Record]) -> None:
        """Suspects wait no more."""
        self._left_bytes += sum(len(record.value or b"") for record in records)

    def sit(self, trials: Trials) -> bool:
        """Whether it is their turn; if not, they are called when it is."""
        if self._sitting is None:
            self._sitting = trials
        elif trials not in (self._sitting, *self._queue):
            self._queue.append(trials)
        return self._sitting is trials

    def rise(self, trials: Trials) -> None:
        """They are through for now; the next are called."""
        if trials in self._queue:
            self._queue.remove(trials)
        if self._sitting is trials:
            self._sitting = None
            if self._queue:
                self._queue.popleft().call()


class Trials:
    """The suspects of one partition, in order.

    Args:
        progress: as the takeover found it, its own rise included.
        end: the offset after the last query that was there when it began.
        most: queries that the owner before may have had open.
    """

    def __init__(self, progress: Progress, end: int, court: Court, most: int) -> None:
        self._court = court
        died = progress.trial is not None and progress.trial >= progress.offset
        self._until = end if died or progress.takeovers > PATIENCE else 0
        self._left = most
        self._waiting: deque[Record] = deque()
        self._running: set[int] = set()
        self._fate = (progress.trial, progress.trials, progress.group) if died else (None, 0, 1)
        self._doubted = progress.group if died else 0
        """How many are left of the group that the owner before did not survive."""
        self._group = max(1, min(self._doubted // 2, MOST_TOGETHER))
        self._called = False

    @property
    def fate(self) -> tuple[int | None, int, int]:
        """What to commit: the first offset on trial, how often it has been alone, and of how many.

        What the owner before wrote stands until somebody is called.
        """
        return self._fate

    @property
    def is_over(self) -> bool:
        """Whether the first one has been on trial alone too often."""
        return self._fate[1] > MAX_TRIALS

    def suspects(self, offset: int) -> bool:
        """Whether a query has to wait for its trial."""
        return offset < self._until and self._left > 0 and self._court.has_room

    def wait(self, record: Record) -> None:
        """One more suspect."""
        self._left -= 1
        self._court.keep(record)
        self._waiting.append(record)
        self.call()

    def committed(self, progress: Progress) -> list[Record]:
        """A commit was written; the suspects to start now, if it says that they are on trial."""
        said = (progress.trial, progress.trials, progress.group)
        if not self._called or self._running or said != self._fate:
            return []
        count = min(progress.group, len(self._waiting))
        started = [self._waiting.popleft() for _ in range(count)]
        self._running = {record.offset for record in started}
        self._court.release(started)
        return started

    def survived(self, offset: int) -> None:
        """An offset is done; with the last of a group, the next group's turn."""
        if offset not in self._running:
            return
        self._running.remove(offset)
        if not self._running:
            self._doubted -= self._fate[2]
            if self._doubted <= 0:
                self._group = min(2 * self._group, MOST_TOGETHER)
            else:
                self._group = min(self._group, self._doubted)
            self.adjourn()
            self.call()

    def abandon(self) -> None:
        """The partition is somebody else's now."""
        self._court.release(self._waiting)
        self._waiting.clear()
        self.adjourn()

    def excuse(self) -> None:
        """Whoever comes next does not come because we died: this trial does not count."""
        offset, count, group = self._fate
        self._fate = offset, max(0, count - 1), group

    def adjourn(self) -> None:
        """Nobody of these is on trial any more."""
        self._fate, self._called = (None, 0, 1), False
        self._running.clear()
        self._court.rise(self)

    def call(self) -> None:
        """The next suspects, if there are any and nobody else's are on trial."""
        if self._called or not self._waiting or not self._court.sit(self):
            return
        offset, count, group = self._fate
        first = self._waiting[0].offset
        again = offset == first and group == 1
        self._fate = first, count + 1 if again else 1, self._group
        self._called = True
