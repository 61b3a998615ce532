"""Poison: a query that kills whoever starts it, found by starting suspects one at a time.

After two takeovers without progress every query that was open then is a suspect. A suspect is
started only when the commit says that it is on trial; one that was on trial three times and
never answered is quarantined. A process tries one suspect at a time, of all its partitions: no
suspect is to pay for what another one did.
"""

from __future__ import annotations

from collections import deque

from anabranch.kafka.progress import Progress
from anabranch.kafka.transport import Record

__all__ = ["MAX_TRIALS", "PATIENCE", "Court", "Trials"]

PATIENCE = 2
"""Takeovers without progress that are still taken for bad luck."""
MAX_TRIALS = 3


class Court:
    """Whose suspect is on trial, among the partitions of a process."""

    def __init__(self) -> None:
        self._sitting: Trials | None = None
        self._queue: deque[Trials] = deque()

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
    """

    def __init__(self, progress: Progress, end: int, court: Court) -> None:
        self._court = court
        self._until = end if progress.takeovers > PATIENCE else 0
        self._before = (progress.trial, progress.trials)
        self._waiting: deque[Record] = deque()
        self.offset: int | None = None
        """The offset on trial."""
        self.count = 0
        """How often it has been, this time included."""
        self._started = False

    def suspects(self, offset: int) -> bool:
        """Whether a query has to wait for its trial."""
        return offset < self._until

    def wait(self, record: Record) -> None:
        """One more suspect."""
        self._waiting.append(record)
        self.call()

    def committed(self, progress: Progress) -> Record | None:
        """A commit was written; the suspect to start now, if it says that it is on trial."""
        if self.offset is None or self._started or progress.trial != self.offset:
            return None
        self._started = True
        return self._waiting[0]

    def survived(self, offset: int) -> None:
        """An offset is done; the next suspect's turn."""
        if offset == self.offset:
            self._waiting.popleft()
            self.adjourn()
            self.call()

    def adjourn(self) -> None:
        """Nobody of these is on trial any more."""
        self.offset, self.count, self._started = None, 0, False
        self._court.rise(self)

    def call(self) -> None:
        """The next suspect, if there is one and nobody else's is on trial."""
        if self.offset is None and self._waiting and self._court.sit(self):
            self.offset = self._waiting[0].offset
            trial, trials = self._before
            self.count = trials + 1 if trial == self.offset else 1
