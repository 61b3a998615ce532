"""A worker's share of its group's tasks: positions, commits, pauses, rebalances.

Tasks are committed once they are in the local queue, not when they are done: what a crash left
uncommitted may run twice and counts once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection

from anabranch.contract.events import PRIORITIES, Priority
from anabranch.errors import BrokerError, GenerationLost
from anabranch.kafka.commit_lock import CommitLock
from anabranch.kafka.topics import Topics
from anabranch.kafka.transport import Committed, GroupConsumer, Record, TopicPartition, Transport
from anabranch.kafka.turns import in_turns
from anabranch.worker.local_queue import Throttle

__all__ = ["Subscription"]

log = logging.getLogger(__name__)


class Subscription:
    """The task topics of one group, as a member of its consumer group.

    Args:
        announce: tells everybody which partitions are ours, before the first task of them is
            read: whoever dies of it must be known to have had it.
    """

    def __init__(
        self,
        transport: Transport,
        topics: Topics,
        namespace: str,
        group: str,
        instance: str,
        announce: Callable[[], Awaitable[None]],
    ) -> None:
        self._announce = announce
        self.consumer: GroupConsumer = transport.consumer(
            instance, f"{namespace}workers.{group}", topics.tasks_of(group), self
        )
        self.joined = asyncio.Event()
        """Set by the first assignment."""
        self._priorities: dict[str, Priority] = {
            topics.tasks(group, priority): priority for priority in PRIORITIES
        }
        self._assigned: frozenset[TopicPartition] = frozenset()
        self._assignments = 0
        self._paused: frozenset[Priority] = frozenset()
        self._positions: dict[TopicPartition, int] = {}
        self._committed: dict[TopicPartition, int] = {}
        self._lock = CommitLock()

    @property
    def partitions(self) -> list[int]:
        """Partitions that are ours, of every priority."""
        return sorted({tp.partition for tp in self._assigned})

    async def fetch(self, timeout_ms: int) -> AsyncIterator[tuple[Priority, Record]]:
        """Tasks with their priority; each counts as queued once the next is asked for."""
        batches = await self.consumer.fetch(timeout_ms)
        assignments = self._assignments
        async for tp, record in in_turns(batches):
            if self._lock.held or assignments != self._assignments:
                return  # fetched before a rebalance and not committed: read again
            yield self._priorities[tp.topic], record
            if assignments == self._assignments:
                self._positions[tp] = record.offset + 1

    def throttle(self, throttle: Throttle, depth: int) -> None:
        """Pause and resume priorities as the local queue fills and empties."""
        pause, resume = throttle.update(depth)
        self._paused = throttle.paused
        if pause:
            self.consumer.pause(self._partitions_of(pause))
        if resume:
            self.consumer.resume(self._partitions_of(resume))

    async def commit(self) -> None:
        """Commit what is queued, unless a rebalance is under way: that commits itself.

        Raises:
            GenerationLost: the group goes on without us.
        """
        async with self._lock.turn_soon() as mine:
            if mine:
                await self._commit()

    # ── callbacks of the group consumer ────────────────────────────────────────────────────

    async def revoked(self, partitions: Collection[TopicPartition]) -> None:
        """What is queued is committed: it will be finished here, whoever has the partition.

        Raises:
            GenerationLost: the group goes on without us.
        """
        await self._lock.hold()
        try:
            await self._commit()
        except GenerationLost:
            raise
        except BrokerError as error:
            log.warning("could not commit before the rebalance: %s", error)

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        """Positions start at what is committed; pauses are restored."""
        self._assigned = frozenset(partitions)
        self._assignments += 1
        self._positions.clear()
        self._committed.clear()
        self.consumer.pause(self._partitions_of(self._paused))
        try:
            await self._announce()
        except BrokerError as error:
            log.warning("could not say which partitions are read here: %s", error)
        self._lock.release()
        self.joined.set()

    # ── details ────────────────────────────────────────────────────────────────────────────

    async def _commit(self) -> None:
        moved = {
            tp: position
            for tp, position in self._positions.items()
            if self._committed.get(tp) != position
        }
        if moved:
            await self.consumer.commit({tp: Committed(p, "") for tp, p in moved.items()})
            self._committed.update(moved)

    def _partitions_of(self, priorities: Collection[Priority]) -> list[TopicPartition]:
        return [tp for tp in self._assigned if self._priorities[tp.topic] in priorities]
