"""How a partition becomes ours: fence whoever had it, claim it, read back what is there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from msgspec import structs

from anabranch.coordinator.delivery.contract import Delivery
from anabranch.coordinator.partitions.committer import Committer
from anabranch.coordinator.partitions.recovery import Recovery, progress_of
from anabranch.coordinator.progress.restored import Restored
from anabranch.coordinator.progress.window import Progress
from anabranch.coordinator.query.counters import Counters
from anabranch.coordinator.query.partition import QueryPartition
from anabranch.dispatch.released_epochs import ReleasedEpochs
from anabranch.kafka.transport import Committed, GroupConsumer, Reader, TopicPartition

__all__ = ["Taken", "Takeover"]

log = logging.getLogger(__name__)


class Taken(NamedTuple):
    """What is there of a partition, and where `queries` ended at a time (on the broker's clock)."""

    restored: Restored
    end: int
    at_ms: float


class Takeover:
    """Makes partitions of `topic` ours, unless the group changes meanwhile.

    Args:
        reader: asked for beginnings and ends.
    """

    def __init__(
        self,
        topic: str,
        consumer: Callable[[], GroupConsumer],
        delivery: Delivery,
        committer: Committer,
        reader: Reader,
        recovery: Recovery,
        released: ReleasedEpochs,
        counters: Counters,
        now_ms: Callable[[], float],
    ) -> None:
        self.claimed: dict[int, Progress] = {}
        """Partitions whose takeover has begun in this generation; as it was written."""
        self._topic = topic
        self._consumer = consumer
        self._delivery = delivery
        self._committer = committer
        self._reader = reader
        self._recovery = recovery
        self._released = released
        self._counters = counters
        self._now_ms = now_ms

    async def take_over(
        self, numbers: Collection[int], is_current: Callable[[], bool]
    ) -> dict[int, Taken] | None:
        """What is there of partitions that are ours now; None if the group changed again.

        Args:
            is_current: whether the assignment that made them ours still holds.
        """
        await self._consumer().prove()  # a zombie must not fence who has them by right
        await self._delivery.open(numbers)
        commits = await self.committed(numbers)
        if not is_current():
            return None
        queries = {n: TopicPartition(self._topic, n) for n in commits}
        at_ms = self._now_ms()
        beginnings, ends = await asyncio.gather(
            self._reader.beginnings(queries.values()), self._reader.ends(queries.values())
        )
        for number, commit in commits.items():
            at = queries[number]
            _say_what_is_gone(number, commit, beginnings[at], ends[at])
        claims = {
            n: self._raised(n, progress_of(commit, beginnings[queries[n]], ends[queries[n]]))
            for n, commit in commits.items()
            if n not in self.claimed  # by a try that was cut short: it counts once
        }
        if not await self._claim(claims, is_current):
            return None
        restored = await self._recovery.read_back({n: self.claimed[n] for n in commits})
        if not is_current():
            return None
        self._counters.takeovers += sum(commit is not None for commit in commits.values())
        return {n: Taken(read, ends[queries[n]], at_ms) for n, read in restored.items()}

    async def committed(self, numbers: Collection[int]) -> dict[int, Committed | None]:
        """What the group has committed of these partitions."""
        wanted = {n: TopicPartition(self._topic, n) for n in numbers}
        found = await self._consumer().committed(list(wanted.values())) if wanted else {}
        return {n: found.get(tp) for n, tp in wanted.items()}

    async def still_hold(self, partitions: Mapping[int, QueryPartition]) -> Collection[int]:
        """Those whose logs hold what was read of them last."""
        return await self._recovery.still_hold({n: p.progress.mark for n, p in partitions.items()})

    def begin_anew(self) -> None:
        """What was claimed is taken over, or somebody else's."""
        self.claimed = {}

    async def clear_suspicion(self) -> None:
        """The group stops: whoever comes next does not come because we died."""
        calm = {n: structs.replace(p, takeovers=0) for n, p in self.claimed.items()}
        await self._committer.write(calm)

    def _raised(self, number: int, progress: Progress) -> Progress:
        """As a takeover begins: one more of them, unless whoever had it before did not die."""
        raised = structs.replace(progress, epoch=progress.epoch + 1)
        if self._released.has(number, progress.epoch):
            return structs.replace(raised, trials=max(0, progress.trials - 1))
        return structs.replace(raised, takeovers=progress.takeovers + 1)

    async def _claim(
        self, takeovers: Mapping[int, Progress], is_current: Callable[[], bool]
    ) -> bool:
        """Write the raised epoch before anything is done under it."""
        async with self._committer.lock.turn():
            if not is_current():
                return False
            await self._committer.write(takeovers)
            self.claimed |= takeovers
        return True


def _say_what_is_gone(number: int, commit: Committed | None, beginning: int, end: int) -> None:
    if commit is not None and commit.offset < beginning:
        log.warning(
            "partition %d of queries begins at %d, but was answered only up to %d: retention took "
            "what lay between; raise topics.retention_ms above the longest outage",
            number,
            beginning,
            commit.offset,
        )
    elif commit is not None and commit.offset > end:
        log.warning(
            "partition %d of queries ends at %d, but was read up to %d: it was made anew, or a "
            "node lost records; it is read from its beginning, without what is answered",
            number,
            end,
            commit.offset,
        )
