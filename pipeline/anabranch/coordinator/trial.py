"""Poison: a query that kills whoever starts it, found by starting suspects one at a time.

After two takeovers without progress every query that was open then is a suspect. A suspect is
started only when the commit says that it is on trial; one that was on trial three times and
never answered is quarantined.
"""

from __future__ import annotations

from collections import deque

from anabranch.kafka.progress import Progress
from anabranch.kafka.transport import Record

__all__ = ["MAX_TRIALS", "PATIENCE", "Trials"]

PATIENCE = 2
"""Takeovers without progress that are still taken for bad luck."""
MAX_TRIALS = 3


class Trials:
    """The suspects of one partition, in order.

    Args:
        progress: as the takeover found it, its own rise included.
        end: the offset after the last query that was there when it began.
    """

    def __init__(self, progress: Progress, end: int) -> None:
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
        self._call()

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
            self.offset, self.count, self._started = None, 0, False
            self._call()

    def _call(self) -> None:
        if self.offset is None and self._waiting:
            self.offset = self._waiting[0].offset
            trial, trials = self._before
            self.count = trials + 1 if trial == self.offset else 1
