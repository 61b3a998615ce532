"""The query's offset is the join's state: which offsets of a partition are done, in a commit.

`Window` keeps it while the partition is owned; `metadata` carries it in the commit, so that there
is no other state store.
"""

from __future__ import annotations

from collections.abc import Iterable
from zlib import crc32

from msgspec import Struct, structs

from anabranch.kafka.transport import Record

__all__ = ["Bounds", "Mark", "Progress", "Window"]


class Bounds(Struct, frozen=True, gc=False):
    """Where `results[p]` and `partials[p]` ended, at least, when a query was first read."""

    results: int = 0
    partials: int = 0

    def lowered(self, to: Bounds) -> Bounds:
        """The lower of both, each."""
        return Bounds(min(self.results, to.results), min(self.partials, to.partials))


class Mark(Struct, frozen=True, gc=False):
    """The last record that was read: by it a log is known again.

    Logs agree up to any record that they share. One that has another record there lost its tail
    and grew again, or was made anew: then nothing that is said of its offsets holds.
    """

    offset: int
    digest: int

    @staticmethod
    def of(record: Record) -> Mark:
        """The mark of a record."""
        return Mark(record.offset, crc32(record.value or b"", record.timestamp & 0xFFFFFFFF))


class Progress(Struct, frozen=True):
    """What a commit says of a partition of `queries`.

    Attributes:
        offset: the watermark: every lower offset is done.
        completed: done offsets from there on, ascending.
        bounds: of the oldest open query; None means unknown: read from the beginning.
        epoch: raised by every takeover.
        takeovers: takeovers in a row after which the oldest open query was not answered.
        trial: a suspect's offset, written before it is started.
        trials: how often it has been on trial alone.
        mark: the last query that was read.
        stamps_ms: how far the partition's time stamps are behind the broker's clock.
        group: how many suspects, from that one on, are on trial together.
    """

    offset: int
    completed: tuple[int, ...] = ()
    bounds: Bounds | None = None
    epoch: int = 0
    takeovers: int = 0
    trial: int | None = None
    trials: int = 0
    mark: Mark | None = None
    stamps_ms: int = 0
    group: int = 1

    def within(self, beginning: int, end: int) -> Progress:
        """What of it concerns a log that holds these offsets.

        Retention may have outrun the watermark: what is gone cannot be answered any more.
        """
        offset = max(self.offset, beginning)
        on_trial = self.trial is not None and offset <= self.trial < end
        return structs.replace(
            self,
            offset=offset,
            completed=tuple(done for done in self.completed if offset <= done < end),
            trial=self.trial if on_trial else None,
            trials=self.trials if on_trial else 0,
            group=self.group if on_trial else 1,
        )


class Window:
    """The offsets of an owned partition between its watermark and its position.

    Offsets are opened in ascending order and completed in any.
    """

    __slots__ = ("_done", "_open", "position")

    def __init__(self, position: int, done: Iterable[int] = ()) -> None:
        self.position = position
        """The next offset to be read."""
        self._open: dict[int, Bounds] = {}  # ascending, as offsets are opened in order
        self._done = set(done)

    def __len__(self) -> int:
        """How many offsets are open."""
        return len(self._open)

    @property
    def watermark(self) -> int:
        """The lowest open offset, else the position (transactions leave gaps between)."""
        return next(iter(self._open), self.position)

    def is_done(self, offset: int) -> bool:
        """Whether an offset at or above the watermark was completed before."""
        return offset in self._done

    def is_open(self, offset: int) -> bool:
        """Whether a query was read and is not done."""
        return offset in self._open

    def open(self, offset: int, bounds: Bounds) -> None:
        """A query was read; it stays open until its answer is acknowledged."""
        self._open[offset] = bounds
        self.position = offset + 1

    def skip(self, offset: int) -> None:
        """A record was read that is answered."""
        self._done.add(offset)
        self.position = offset + 1

    def complete(self, offset: int) -> None:
        """An answer was acknowledged."""
        if self._open.pop(offset, None) is not None:
            self._done.add(offset)

    def lower(self, bounds: Bounds) -> None:
        """`results` or `partials` lost their tail: what comes for open queries may lie lower."""
        self._open = {offset: had.lowered(bounds) for offset, had in self._open.items()}

    def snapshot(self, here: Bounds) -> Progress:
        """What is done; `here` are the bounds of what is read next, if nothing is open."""
        watermark = self.watermark
        # The watermark itself may be done: restored as such, and not read again yet.
        self._done = {offset for offset in self._done if offset >= watermark}
        return Progress(
            offset=watermark,
            completed=tuple(sorted(self._done)),
            bounds=next(iter(self._open.values()), here),
        )
