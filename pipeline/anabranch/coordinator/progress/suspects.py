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
from anabranch.coordinator.progress.window import Progress
from anabranch.kafka.transport import Record

__all__ = ["MAX_TRIALS", "PATIENCE", "SuspectQueue", "Suspects"]

PATIENCE = 2
"""Takeovers without progress that are still taken for bad luck."""
MAX_TRIALS = 3
MOST_TOGETHER = 250
"""Suspects of a group: all of it is started in one turn."""


class SuspectQueue:
    """Whose suspects are on trial, among the partitions of a process, and what waits for it.

    Args:
        max_bytes: of suspects that wait: no owner before can have had more open.
    """

    def __init__(self, max_bytes: int = CoordinatorConfig().max_open_bytes) -> None:
        self._active: Suspects | None = None
        self._waiting: deque[Suspects] = deque()
        self._left_bytes = max_bytes

    @property
    def has_room(self) -> bool:
        """Whether one more suspect, of any size, may wait."""
        return self._left_bytes > 0

    def reserve(self, record: Record) -> None:
        """A suspect waits."""
        self._left_bytes -= len(record.value or b"")

    def free(self, records: Iterable[Record]) -> None:
        """Suspects wait no more."""
        self._left_bytes += sum(len(record.value or b"") for record in records)

    def acquire(self, suspects: Suspects) -> bool:
        """Whether it is their turn; if not, their trial starts when it is."""
        if self._active is None:
            self._active = suspects
        elif suspects not in (self._active, *self._waiting):
            self._waiting.append(suspects)
        return self._active is suspects

    def release(self, suspects: Suspects) -> None:
        """They are through for now; the trial of the next starts."""
        if suspects in self._waiting:
            self._waiting.remove(suspects)
        if self._active is suspects:
            self._active = None
            if self._waiting:
                self._waiting.popleft().start_trial()


class Suspects:
    """The suspects of one partition, in order.

    Args:
        progress: as the takeover found it, its own rise included.
        end: the offset after the last query that was there when it began.
        most: queries that the owner before may have had open.
    """

    def __init__(self, progress: Progress, end: int, queue: SuspectQueue, most: int) -> None:
        self._queue = queue
        died = progress.trial is not None and progress.trial >= progress.offset
        self._until = end if died or progress.takeovers > PATIENCE else 0
        self._left = most
        self._waiting: deque[Record] = deque()
        self._running: set[int] = set()
        self._trial = (progress.trial, progress.trials, progress.group) if died else (None, 0, 1)
        self._doubted = progress.group if died else 0
        """How many are left of the group that the owner before did not survive."""
        self._group = max(1, min(self._doubted // 2, MOST_TOGETHER))
        self._on_trial = False

    @property
    def trial(self) -> tuple[int | None, int, int]:
        """What to commit: the first offset on trial, how often it has been alone, and of how many.

        What the owner before wrote stands until a trial starts.
        """
        return self._trial

    @property
    def is_exhausted(self) -> bool:
        """Whether the first one has been on trial alone too often."""
        return self._trial[1] > MAX_TRIALS

    def must_wait(self, offset: int) -> bool:
        """Whether a query has to wait for its trial."""
        return offset < self._until and self._left > 0 and self._queue.has_room

    def hold_back(self, record: Record) -> None:
        """One more suspect."""
        self._left -= 1
        self._queue.reserve(record)
        self._waiting.append(record)
        self.start_trial()

    def to_start(self, progress: Progress) -> list[Record]:
        """A commit was written; the suspects to start now, if it says that they are on trial."""
        said = (progress.trial, progress.trials, progress.group)
        if not self._on_trial or self._running or said != self._trial:
            return []
        count = min(progress.group, len(self._waiting))
        started = [self._waiting.popleft() for _ in range(count)]
        self._running = {record.offset for record in started}
        self._queue.free(started)
        return started

    def survived(self, offset: int) -> None:
        """An offset is done; with the last of a group, the next group's turn."""
        if offset not in self._running:
            return
        self._running.remove(offset)
        if not self._running:
            self._doubted -= self._trial[2]
            if self._doubted <= 0:
                self._group = min(2 * self._group, MOST_TOGETHER)
            else:
                self._group = min(self._group, self._doubted)
            self.end_trial()
            self.start_trial()

    def abandon(self) -> None:
        """The partition is somebody else's now."""
        self._queue.free(self._waiting)
        self._waiting.clear()
        self.end_trial()

    def discount_trial(self) -> None:
        """Whoever comes next does not come because we died: this trial does not count."""
        offset, count, group = self._trial
        self._trial = offset, max(0, count - 1), group

    def end_trial(self) -> None:
        """Nobody of these is on trial any more."""
        self._trial, self._on_trial = (None, 0, 1), False
        self._running.clear()
        self._queue.release(self)

    def start_trial(self) -> None:
        """The next suspects, if there are any and nobody else's are on trial."""
        if self._on_trial or not self._waiting or not self._queue.acquire(self):
            return
        offset, count, group = self._trial
        first = self._waiting[0].offset
        again = offset == first and group == 1
        self._trial = first, count + 1 if again else 1, self._group
        self._on_trial = True
