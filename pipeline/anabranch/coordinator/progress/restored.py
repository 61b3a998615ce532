"""What a takeover reads back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from anabranch.config.settings import CoordinatorConfig
from anabranch.contract.codec import read_id
from anabranch.contract.events import Partial, PartialResult
from anabranch.coordinator.progress.dedupe_window import PastId
from anabranch.coordinator.progress.window import Bounds, Progress
from anabranch.kafka.transport import Record

__all__ = ["Restored"]


class Restored:
    """Where to start, what is answered, what has arrived: for as long as old offsets are read.

    Answers and partials name their query beside its offset: a topic that was made anew has other
    queries at the same offsets. Offsets that the owner before cannot have read say nothing.

    Args:
        progress: as it was claimed.
        bounds: ends of results and partials when the reading stopped.
        end: the end of `queries` then.
        past: ids of queries that are done.
        max_bytes: of partials that are kept for queries to be read (again).
        leader_epoch: of the last query that the owner before read; -1 if it is not known.
    """

    def __init__(
        self,
        progress: Progress,
        bounds: Bounds,
        end: int,
        past: Sequence[PastId] = (),
        max_bytes: int = CoordinatorConfig().max_open_bytes,
        leader_epoch: int = -1,
    ) -> None:
        self.progress = progress
        self.end = end
        self.bounds = bounds
        self.leader_epoch = leader_epoch
        self._answered: dict[int, str] = {}
        self._arrived: dict[int, list[tuple[int, Partial]]] = {}
        self._done = frozenset(progress.completed)
        self._left_bytes = max_bytes
        self._past = past
        self._before = (progress.bounds or Bounds()).lowered(bounds)
        mark = -1 if progress.mark is None else progress.mark.offset
        self._last = max(progress.completed, default=mark)

    def ids(self, now_ms: float) -> Iterator[PastId]:
        """Ids of queries that are done or answered."""
        yield from self._past
        yield from (PastId(id_, now_ms, offset) for offset, id_ in self._answered.items())

    def add_answer(self, offset: int, id_: str) -> None:
        """`results` has an answer to this query."""
        if self._note(offset):
            self._answered[offset] = id_
            self.forget(offset)

    def add_partial(self, record: Record, partial: Partial) -> None:
        """`partials` has this."""
        if self._note(partial.offset):
            self.arrive(record, partial)

    def arrive(self, record: Record, partial: Partial) -> None:
        """A partial is there before its query was read (again).

        What nobody waits for is not kept, nor what does not fit: its layers are asked again.
        """
        offset, size = partial.offset, len(record.value or b"")
        is_done = offset < self.progress.offset or offset in self._done or offset in self._answered
        if not is_done and size <= self._left_bytes:
            self._left_bytes -= size
            self._arrived.setdefault(offset, []).append((size, partial))

    def is_answered(self, record: Record) -> bool:
        """Whether `results` has an answer to this record; to be asked once."""
        id_ = self._answered.pop(record.offset, None)
        return id_ is not None and id_ == read_id(record.value)

    def arrived(self, offset: int, id_: str) -> list[PartialResult]:
        """What has arrived for a query, handed out once."""
        if offset not in self._arrived:  # the rule, but after a takeover
            return []
        partials = self.forget(offset)
        return [result for p in partials if p.query == id_ for result in p.results]

    def forget(self, offset: int) -> list[Partial]:
        """Nobody waits any more for what has arrived there."""
        found = self._arrived.pop(offset, [])
        self._left_bytes += sum(size for size, _ in found)
        return [partial for _, partial in found]

    def bounds_at(self, offset: int) -> Bounds | None:
        """The bounds under which the owner before first read a query, if it has read it."""
        return self._before if offset <= self._last else None

    def lower(self, bounds: Bounds) -> None:
        """`results` or `partials` lost their tail: what comes now may lie lower."""
        self._before = self._before.lowered(bounds)

    def _note(self, offset: int) -> bool:
        """Whether this is a query that is read again; then the owner before has read it."""
        again = self.progress.offset <= offset < self.end
        if again:
            self._last = max(self._last, offset)
        return again
