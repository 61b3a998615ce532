"""What is kept of a partition while it is ours, so that a commit can say how far it is."""

from __future__ import annotations

from msgspec import structs

from anabranch.coordinator.progress.restored import Restored
from anabranch.coordinator.progress.stamps import Stamps
from anabranch.coordinator.progress.suspects import Suspects
from anabranch.coordinator.progress.window import Bounds, Mark, Progress, Window
from anabranch.errors import TopicError
from anabranch.kafka.transport import Record

__all__ = ["ProgressTracker"]


class ProgressTracker:
    """Which queries are read, done, or on trial, and where the logs end that belong to them.

    Args:
        max_open: queries that the owner before may have had open.
    """

    def __init__(self, restored: Restored, suspects: Suspects, max_open: int) -> None:
        progress = restored.progress
        self.restored = restored
        self.suspects = suspects
        self.stamps = Stamps(progress.stamps_ms)
        self.takeovers = progress.takeovers
        """Takeovers in a row after which the oldest open query was not answered."""
        self._max_open = max_open
        self._window = Window(progress.offset, progress.completed)
        self._bounds = restored.bounds
        self._oldest: int | None = None
        """The first query that was open here."""
        self._latest: Record | None = None
        self.in_doubt = False
        """True until its log is seen to hold what was read: nothing more is read until then."""
        self._leader_epoch = restored.leader_epoch
        self._was_unread = False

    @property
    def open_count(self) -> int:
        """Queries read and not yet acknowledged."""
        return len(self._window)

    @property
    def position(self) -> int:
        """The next offset of `queries` to read."""
        return self._window.position

    @property
    def partials_position(self) -> int:
        """The next offset of `partials` to read."""
        return self._bounds.partials

    @property
    def mark(self) -> Mark | None:
        """Of the last query that was read, by the owner before if it was further."""
        before, latest = self.restored.progress.mark, self._latest
        if latest is None or (before is not None and before.offset > latest.offset):
            return before
        return Mark.of(latest)

    def snapshot(self) -> Progress:
        """What to commit now."""
        trial, trials, group = self.suspects.trial
        return structs.replace(
            self._window.snapshot(self._bounds_at_reading(self._window.position)),
            epoch=self.restored.progress.epoch,
            takeovers=self.takeovers,
            trial=trial,
            trials=trials,
            group=group,
            mark=self.mark,
            stamps_ms=round(self.stamps.behind_ms),
        )

    def goes_unread(self) -> None:
        """Nobody reads the log for a while."""
        self._was_unread = True

    def doubts(self, record: Record) -> bool:
        """Whether what was read before this query may be gone from the log; then it is `in_doubt`.

        A log that lost its tail and grew again beyond what was read brings no offset again: what
        tells is that another leader appended this or, where brokers do not say who did, that nobody
        read for a while.
        """
        before, epoch = self._leader_epoch, record.leader_epoch
        if epoch >= 0:
            self._leader_epoch = epoch
        self.in_doubt = epoch != before if min(epoch, before) >= 0 else self._was_unread
        self._was_unread = False
        return self.in_doubt

    def read(self, record: Record) -> bool:
        """The next record of `queries`; False if it is done already.

        Raises:
            TopicError: its offset was read before: the log lost its tail, or was made anew.
        """
        if record.offset < self._window.position:
            raise TopicError(
                f"{record.topic}[{record.partition}] goes on at {record.offset}, but was read up "
                f"to {self._window.position}"
            )
        if record.error is None:
            self._latest = record
        if self._window.is_done(record.offset) or self.restored.is_answered(record):
            self._window.skip(record.offset)
            self.restored.forget(record.offset)
            return False
        if self._oldest is None:
            self._oldest = record.offset
        self._window.open(record.offset, self._bounds_at_reading(record.offset))
        return True

    def is_ahead(self, offset: int) -> bool:
        """Whether a partial is for a query that is still to be read (again): a takeover."""
        return self.position <= offset < self.position + self._max_open

    def is_open(self, offset: int) -> bool:
        """Whether a query was read here and is not done."""
        return self._window.is_open(offset)

    def complete(self, offset: int) -> None:
        """A query's answer is acknowledged, or none is owed."""
        self._window.complete(offset)
        self.suspects.survived(offset)
        if offset == self._oldest:  # what is answered beside it says nothing of it
            self.takeovers = 0

    def saw_results(self, end: int) -> None:
        """`results` ends there; lower than before is a lost tail."""
        self._saw(Bounds(end, self._bounds.partials))

    def saw_partials(self, end: int) -> None:
        """`partials` ends there; lower than before is a lost tail."""
        self._saw(Bounds(self._bounds.results, end))

    def clear_suspicion(self) -> None:
        """Whoever comes next does not come because we died."""
        self.takeovers = 0
        self.suspects.discount_trial()

    def _saw(self, bounds: Bounds) -> None:
        before = self._bounds
        if bounds.results < before.results or bounds.partials < before.partials:
            self._window.lower(bounds)
            self.restored.lower(bounds)
        self._bounds = bounds

    def _bounds_at_reading(self, offset: int) -> Bounds:
        """Restored queries inherit the bounds under which they were first read."""
        return self.restored.bounds_at(offset) or self._bounds
