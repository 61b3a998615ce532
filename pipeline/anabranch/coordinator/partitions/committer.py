"""Commits what is acknowledged: one committer with one lock."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping

from anabranch.config.settings import CoordinatorConfig
from anabranch.coordinator.delivery.commits import Commit
from anabranch.coordinator.delivery.contract import Delivery
from anabranch.coordinator.delivery.publisher import Publisher
from anabranch.coordinator.progress.metadata import encode
from anabranch.coordinator.progress.window import Progress
from anabranch.coordinator.query.counters import Counters
from anabranch.coordinator.query.owned import OwnedPartitions
from anabranch.coordinator.query.partition import QueryPartition
from anabranch.errors import BrokerUnavailable
from anabranch.kafka.commit_lock import CommitLock
from anabranch.kafka.transport import Committed, GroupConsumer, TopicPartition
from anabranch.runtime.supervisor import Stage

__all__ = ["Committer"]

log = logging.getLogger(__name__)


class Committer:
    """Writes the progress of partitions that are ours.

    Args:
        consumer: of `topic`; nothing more is read of a partition whose window is full.
    """

    def __init__(
        self,
        config: CoordinatorConfig,
        topic: str,
        owned: OwnedPartitions,
        delivery: Delivery,
        publisher: Publisher,
        consumer: Callable[[], GroupConsumer],
        counters: Counters,
    ) -> None:
        self.lock = CommitLock()
        self._interval_s = config.commit_interval_ms / 1000
        self._topic = topic
        self._owned = owned
        self._delivery = delivery
        self._publisher = publisher
        self._consumer = consumer
        self._counters = counters
        self._full: set[int] = set()

    async def run(self, stage: Stage) -> None:
        """Stage: commit what is acknowledged, every interval."""
        while True:
            stage.beat()
            await asyncio.sleep(self._interval_s)
            try:
                await self.commit_now()
            except BrokerUnavailable as error:
                log.warning("will commit when the broker is back: %s", error)
            self._throttle()
            await self._publisher.flush()

    async def commit_now(self) -> None:
        """Commit every partition that is ours beyond doubt and has moved.

        Raises:
            GenerationLost: the group goes on without us.
            BrokerUnavailable: nobody answers; what is acknowledged can be committed later.
        """
        async with self.lock.turn_soon() as mine:
            if mine:
                await self.commit(p for p in self._owned.values() if not p.held)

    async def commit(self, partitions: Iterable[QueryPartition]) -> None:
        """Commit what has moved of these, for whoever has the lock; raises as `commit_now`."""
        commits = [
            commit
            for partition in partitions
            if (commit := Commit.of(partition)).committed != partition.written
        ]
        if commits:
            await self._delivery.commit(commits)

    async def write(self, progress: Mapping[int, Progress]) -> None:
        """Commit for partitions that are not being worked on yet; raises as `commit_now`."""
        await self._delivery.write(
            {n: Committed(p.offset, encode(p)[0]) for n, p in progress.items()}
        )

    def begin_anew(self) -> None:
        """After an assignment nothing is paused that was."""
        self._full.clear()

    def _throttle(self) -> None:
        """Read nothing more where the window does not fit into the metadata any more."""
        full = {n for n, p in self._owned.items() if p.full and not p.held}
        roomy = {n for n, p in self._owned.items() if not p.full and not p.held}
        self._consumer().pause([TopicPartition(self._topic, n) for n in full - self._full])
        self._consumer().resume([TopicPartition(self._topic, n) for n in self._full & roomy])
        self._counters.window_full += len(full - self._full)
        self._full = full
