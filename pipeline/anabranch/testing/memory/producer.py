"""The in-memory broker's producer."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from anabranch.errors import BrokerError, ProduceError, RecordRefused
from anabranch.kafka.transport import (
    CREATE_TIME,
    Acked,
    Headers,
    Outcome,
    ProducerRecord,
    TopicPartition,
)
from anabranch.testing.memory.cluster import Cluster
from anabranch.testing.memory.log import Log, Topic, partition_of
from anabranch.testing.memory.network import Pipe, Process

__all__ = ["MemoryProducer"]

T = TypeVar("T")

_CUT_RATE: Final = 0.1
_MAX_REQUEST_BYTES: Final = 5_500_000
"""As the real client refuses what no broker would take."""


class MemoryProducer:
    """Sends travel and are acknowledged in order within a partition, in any order across."""

    def __init__(self, cluster: Cluster, process: Process) -> None:
        self._cluster = cluster
        self._process = process
        self._ways: dict[TopicPartition, tuple[Pipe, Pipe]] = {}
        self._turn = itertools.count()
        self._in_flight: set[asyncio.Future[Any]] = set()

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
    ) -> asyncio.Future[Acked]:
        self._process.check()
        into = self._cluster.topic(topic)
        record = ProducerRecord(value, key, headers)
        _check(topic, record)
        log = into.log(self._choose(into, key) if partition is None else partition)
        own_ms = self._own_ms(into)

        def land() -> Acked:
            outcome = self._append(into, log, record, own_ms)
            if isinstance(outcome, RecordRefused):
                raise outcome
            return Acked(log.partition.partition, outcome)

        return self._travel(log, land)

    async def send_batch(
        self, topic: str, partition: int, records: Sequence[ProducerRecord]
    ) -> asyncio.Future[Sequence[Outcome]]:
        self._process.check()
        into = self._cluster.topic(topic)
        log = into.log(partition)
        for record in records:
            _check(topic, record)
        own_ms = self._own_ms(into)

        outcomes: list[Outcome] = []

        def append(part: Sequence[ProducerRecord]) -> None:
            outcomes.extend(self._append(into, log, record, own_ms) for record in part)

        def land() -> Sequence[Outcome]:
            append(records[cut:])
            first, end = log.end - len(records), log.end
            return range(first, end) if outcomes == [*range(first, end)] else outcomes

        cut = self._cut(len(records))
        if cut:  # a batch was full, or on its way: what is sent together may arrive in part
            self._travel(log, lambda: append(records[:cut])).add_done_callback(_forget)
        return self._travel(log, land)

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
        return await self._process.call(lambda: self._cluster.partitions(topic))

    async def lookup(self, topic: str) -> int:
        return await self.partitions(topic)

    def _travel(self, log: Log, land: Callable[[], T]) -> asyncio.Future[T]:
        """What happens on the broker, once it is there; its result comes back."""
        there, back = self._way(log)
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._in_flight.add(future)
        future.add_done_callback(self._in_flight.discard)

        def arrive() -> None:
            try:
                self._check()
                result = land()
            except BrokerError as error:
                back.put(partial(self._refuse, future, error))
            else:
                back.put(partial(self._settle, future, result))

        there.put(arrive)
        return future

    def _append(self, into: Topic, log: Log, record: ProducerRecord, own_ms: int | None) -> Outcome:
        value, key, headers = record
        if (refusal := into.refusal(key, value, headers, _MAX_REQUEST_BYTES)) is not None:
            return RecordRefused(refusal)
        stamp = self._cluster.stamp() + log.ahead_ms if own_ms is None else own_ms
        offset = log.append(key, value, tuple(headers), stamp, into.timestamp_type)
        self._appended(log, offset)
        return offset

    def _cut(self, records: int) -> int:
        """Where a batch is cut in two; mostly it is not."""
        draw = self._process.network.random
        return draw.randrange(records) if records > 1 and draw.random() < _CUT_RATE else 0

    def _own_ms(self, topic: Topic) -> int | None:
        """The time by which the sender stamps, where it is not the broker who does."""
        own = topic.timestamp_type == CREATE_TIME
        return int(self._process.clock.time_ms()) if own else None

    def _check(self) -> None:
        """On the broker, before records are appended."""

    def _appended(self, log: Log, offset: int) -> None:
        """On the broker, after each."""

    def _refuse(self, future: asyncio.Future[Any], error: BrokerError) -> None:
        if self._process.alive and not future.done():
            future.set_exception(error)

    def _settle(self, future: asyncio.Future[T], result: T) -> None:
        if self._process.alive and not future.done():
            future.set_result(result)

    def _choose(self, topic: Topic, key: bytes | None) -> int:
        if key is None:
            return next(self._turn) % len(topic.logs)
        return partition_of(key, len(topic.logs))

    def _way(self, log: Log) -> tuple[Pipe, Pipe]:
        if log.partition not in self._ways:
            self._ways[log.partition] = (self._process.pipe(), Pipe(self._process))
        return self._ways[log.partition]


def _forget(sent: asyncio.Future[Any]) -> None:
    """What fails it fails what is sent after it too."""
    if not sent.cancelled():
        sent.exception()


def _check(topic: str, record: ProducerRecord) -> None:
    if record.key is None and record.value is None:
        raise ProduceError(f"{topic}: a record needs a key or a value")
