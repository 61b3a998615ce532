"""The in-memory broker's transactional producer."""

from __future__ import annotations

from collections.abc import Mapping

from anabranch.kafka.transport import Committed, TopicPartition
from anabranch.testing.memory.cluster import Cluster
from anabranch.testing.memory.log import Log
from anabranch.testing.memory.network import Process
from anabranch.testing.memory.producer import MemoryProducer

__all__ = ["MemoryTransactionalProducer"]


class MemoryTransactionalProducer(MemoryProducer):
    """The producer of one transactional id."""

    def __init__(self, cluster: Cluster, process: Process, transactional_id: str) -> None:
        super().__init__(cluster, process)
        self._id = cluster.transactional_id(transactional_id)
        self._epoch = 0

    async def start(self) -> None:
        self._epoch = await self._process.call(self._id.init)

    async def stop(self) -> None:
        await super().stop()
        self._epoch = 0

    async def begin(self) -> None:
        self._process.check()

    async def commit(self, offsets: Mapping[TopicPartition, Committed], group: str) -> None:
        def effect() -> None:
            self._id.check(self._epoch)
            self._cluster.group(group).put(offsets)
            self._id.commit()

        await self._process.call(effect)

    def _check(self) -> None:
        self._id.check(self._epoch)

    def _appended(self, log: Log, offset: int) -> None:
        self._id.add(log, offset)
