"""The partitions in this coordinator's hands, and how what was sent for one finds it again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from anabranch.contract.events import TaskLayer
from anabranch.coordinator.progress.window import Progress
from anabranch.coordinator.query.claim import Claim
from anabranch.coordinator.query.open_queries import OpenQueries
from anabranch.coordinator.query.outbox import AnswerOut
from anabranch.coordinator.query.partition import QueryPartition

__all__ = ["OwnedPartitions"]


class OwnedPartitions(dict[int, QueryPartition]):
    """By number. What comes back under a claim that is not held any more concerns nobody."""

    def __init__(self, now_ms: Callable[[], float]) -> None:
        super().__init__()
        self._now_ms = now_ms

    def find(self, claim: Claim | None) -> QueryPartition | None:
        """The partition that is held under this claim; None once it is lost."""
        partition = None if claim is None else self.get(claim.number)
        return partition if partition is not None and partition.claim is claim else None

    def queries(self, number: int) -> OpenQueries | None:
        """The open queries of a partition that is ours."""
        partition = self.get(number)
        return None if partition is None else partition.queries

    @property
    def open_count(self) -> int:
        """Queries read and not yet acknowledged."""
        return sum(partition.progress.open_count for partition in self.values())

    def drop(self, number: int) -> QueryPartition | None:
        """A partition is not ours any more; what it was, if it was ours."""
        if (partition := self.pop(number, None)) is not None:
            partition.abandon(self._now_ms())
        return partition

    def defers(self, out: AnswerOut) -> bool:
        """Whether an answer waits until it is known whether its partition is still ours."""
        partition = self.find(out.claim)
        if partition is None or not partition.held:
            return False
        partition.deferred.append(out)
        return True

    def acked(self, claim: Claim, offset: int, results_offset: int | None) -> None:
        """The broker has the answer to a query (at `results_offset`), or none is owed."""
        if (partition := self.find(claim)) is not None:
            partition.on_acked(offset, results_offset)

    def committed(self, claim: Claim, progress: Progress) -> None:
        """The broker has a commit."""
        if (partition := self.find(claim)) is not None:
            partition.on_committed(progress, self._now_ms())

    def refused(
        self, claim: Claim | None, offset: int, layers: Sequence[TaskLayer], why: str
    ) -> None:
        """The broker took no task for these layers of a query."""
        if (partition := self.find(claim)) is not None:
            partition.on_refused(offset, layers, why, self._now_ms())

    def announced(self) -> None:
        """Queries that wait for layers may have them now."""
        now_ms = self._now_ms()
        for partition in self.values():
            partition.on_health(now_ms)

    def shift(self, moved_ms: float, now_ms: float) -> None:
        """The clock was set by `moved_ms` to `now_ms`."""
        for partition in self.values():
            partition.shift(moved_ms, now_ms)
