"""The in-memory broker's transactions: ids with epochs, fencing, timeouts, and their producer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextvars import Context
from typing import TYPE_CHECKING

from anabranch.errors import ProducerFenced
from anabranch.kafka.transport import Committed, TopicPartition
from anabranch.testing.memory.log import Log
from anabranch.testing.memory.network import Process
from anabranch.testing.memory.producer import MemoryProducer

if TYPE_CHECKING:
    from anabranch.testing.memory.broker import MemoryBroker

__all__ = ["MemoryTransactionalProducer", "TransactionalId"]


class TransactionalId:
    """The broker's side of one transactional id. Methods are what a request does, at once."""

    def __init__(self, timeout_s: float) -> None:
        self.epoch = 0
        self._timeout_s = timeout_s
        self._records: dict[Log, list[int]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def init(self) -> int:
        """A producer begins: the one before is fenced, and what it left open is aborted."""
        self._end(committed=False)
        self.epoch += 1
        return self.epoch

    def check(self, epoch: int) -> None:
        """
        Raises:
            ProducerFenced: the producer of that epoch is not the last.
        """
        if epoch != self.epoch:
            raise ProducerFenced(f"epoch {epoch} is over; it is {self.epoch} now")

    def add(self, log: Log, offset: int) -> None:
        """A record of the open transaction; the first begins it."""
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._timeout_s, self.init, context=Context())
        log.hold(offset)
        self._records.setdefault(log, []).append(offset)

    def commit(self) -> None:
        self._end(committed=True)

    def _end(self, *, committed: bool) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        records, self._records = self._records, {}
        for log, offsets in records.items():
            log.decide(offsets, committed=committed)


class MemoryTransactionalProducer(MemoryProducer):
    """The producer of one transactional id."""

    def __init__(self, broker: MemoryBroker, process: Process, transactional_id: str) -> None:
        super().__init__(broker, process)
        self._id = broker.transactional_id(transactional_id)
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
            self._broker.group(group).put(offsets)
            self._id.commit()

        await self._process.call(effect)

    def _check(self) -> None:
        self._id.check(self._epoch)

    def _appended(self, log: Log, offset: int) -> None:
        self._id.add(log, offset)
