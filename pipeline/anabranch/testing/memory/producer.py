"""The in-memory broker's producer."""

from __future__ import annotations

import asyncio
import itertools
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from anabranch.errors import BrokerError, ProduceError, RecordRefused
from anabranch.kafka.transport import CREATE_TIME, Acked, Headers, TopicPartition
from anabranch.testing.memory.log import Log, Topic, partition_of, size_of
from anabranch.testing.memory.network import Pipe, Process

if TYPE_CHECKING:
    from anabranch.testing.memory.broker import MemoryBroker

__all__ = ["MemoryProducer"]

_MAX_REQUEST_BYTES: Final = 5_500_000
"""As the real client refuses what no broker would take."""


class _Ack(NamedTuple):
    partition: int
    offset: int


class MemoryProducer:
    """Sends travel and are acknowledged in order within a partition, in any order across."""

    def __init__(self, broker: MemoryBroker, process: Process) -> None:
        self._broker = broker
        self._process = process
        self._ways: dict[TopicPartition, tuple[Pipe, Pipe]] = {}
        self._turn = itertools.count()
        self._in_flight: set[asyncio.Future[Acked]] = set()

    async def start(self) -> None:
        self._process.check()

    async def stop(self) -> None:
        self._process.check()
        if self._in_flight:
            await asyncio.wait(self._in_flight)

    async def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int | None = None,
        headers: Headers = (),
        alone: bool = False,
    ) -> asyncio.Future[Acked]:
        self._process.check()
        into = self._broker.topic(topic)
        if key is None and value is None:
            raise ProduceError(f"{topic}: a record needs a key or a value")
        if (size := size_of(key, value, headers)) > _MAX_REQUEST_BYTES:
            raise RecordRefused(f"{topic}: a record of {size:,} bytes, over {_MAX_REQUEST_BYTES:,}")
        log = into.log(self._choose(into, key) if partition is None else partition)
        there, back = self._way(log)
        future: asyncio.Future[Acked] = asyncio.get_running_loop().create_future()
        self._in_flight.add(future)
        future.add_done_callback(self._in_flight.discard)
        own_ms = int(self._process.clock.time_ms()) if into.timestamp_type == CREATE_TIME else None

        def land() -> None:
            stamp = self._broker.stamp() + log.ahead_ms if own_ms is None else own_ms
            try:
                self._check()
                if (refusal := into.refusal(key, value, headers)) is not None:
                    raise RecordRefused(refusal)
            except BrokerError as error:
                back.put(partial(self._refuse, future, error))
                return
            offset = log.append(key, value, tuple(headers), stamp, into.timestamp_type)
            self._appended(log, offset)
            back.put(partial(self._settle, future, _Ack(log.partition.partition, offset)))

        there.put(land)
        return future

    async def send_and_wait(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int | None = None,
        headers: Headers = (),
    ) -> Acked:
        return await (await self.send(topic, value, key=key, partition=partition, headers=headers))

    async def partitions(self, topic: str) -> int:
        return await self._process.call(lambda: self._broker.partitions(topic))

    async def lookup(self, topic: str) -> int:
        return await self.partitions(topic)

    def _check(self) -> None:
        """On the broker, before a record is appended."""

    def _appended(self, log: Log, offset: int) -> None:
        """On the broker, after it."""

    def _refuse(self, future: asyncio.Future[Acked], error: BrokerError) -> None:
        if self._process.alive and not future.done():
            future.set_exception(error)

    def _settle(self, future: asyncio.Future[Acked], ack: Acked) -> None:
        if self._process.alive and not future.done():
            future.set_result(ack)

    def _choose(self, topic: Topic, key: bytes | None) -> int:
        if key is None:
            return next(self._turn) % len(topic.logs)
        return partition_of(key, len(topic.logs))

    def _way(self, log: Log) -> tuple[Pipe, Pipe]:
        if log.partition not in self._ways:
            self._ways[log.partition] = (self._process.pipe(), Pipe(self._process))
        return self._ways[log.partition]
