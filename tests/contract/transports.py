"""The implementations of `kafka.transport`, what each of them can do, and tools for their suite.

    @where("several_members")
    async def test_two_members_share(broker: Broker) -> None: ...

runs on every implementation that has several members in a group; on the others it does not exist.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import count as counter
from typing import Any, ClassVar, Final

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka import TopicPartition as KafkaTopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from raw_batches import batch, record
from raw_producer import RawProducer

from anabranch.config.settings import KafkaConfig
from anabranch.dev.local_kafka import LocalKafka
from anabranch.kafka.client import KafkaTransport
from anabranch.kafka.transport import (
    Acked,
    Admin,
    GroupConsumer,
    Reader,
    Record,
    TopicPartition,
    TopicState,
    Transport,
)
from anabranch.testing.memory import MemoryBroker

__all__ = [
    "BROKERS",
    "Broker",
    "Listener",
    "drain",
    "fill",
    "fresh",
    "running",
    "seen",
    "values",
    "where",
]

FAST: Final = {"heartbeat_interval_ms": 100, "rebalance_timeout_ms": 3_000, "fetch_max_wait_ms": 10}
PARTITIONS: Final = 4
"""Of every topic: what the embedded broker gives."""
QUIET_MS: Final = 500

_numbers = counter(1)


def fresh(kind: str) -> str:
    """A name that nothing had before."""
    return f"{kind}-{next(_numbers)}"


class Broker(ABC):
    """One implementation under test."""

    can: ClassVar[frozenset[str]]

    @abstractmethod
    def transport(self, process: str = "main", **kafka: int) -> Transport:
        """Clients of one process, with changed timeouts where there are any."""

    async def topic(self, settings: Mapping[str, str] = {}) -> str:
        """A new topic with `PARTITIONS` partitions."""
        name = fresh("topic")
        async with running(self.transport().admin()) as admin:
            await admin.create({name: TopicState(PARTITIONS, dict(settings))}, 1)
            await seen(admin, [name])
        return name

    async def transaction(
        self, at: TopicPartition, values: Sequence[bytes], *, commit: bool
    ) -> None:
        """Append the records of one transaction, and its end."""
        raise NotImplementedError

    async def delete_before(self, at: TopicPartition, offset: int) -> None:
        """What retention does."""
        raise NotImplementedError

    @abstractmethod
    async def append_unreadable(self, at: TopicPartition) -> None:
        """Append what nobody can unpack, with three offsets; the first of them may be readable."""

    async def append_raw(self, at: TopicPartition, batch: bytes) -> None:
        """Append a batch as it is."""
        raise NotImplementedError

    def rot(self, at: TopicPartition, value: bytes) -> None:
        """Change a byte of a value where it lies, as a bad disk does."""
        raise NotImplementedError


class Memory(Broker):
    can = frozenset(
        {
            "create_topics",
            "log_append_time",
            "metadata_bound",
            "missing_topics",
            "retention",
            "several_members",
            "transactions",
        }
    )

    def __init__(self, _: pytest.FixtureRequest) -> None:
        self._broker = MemoryBroker(kafka=KafkaConfig(**FAST), default_partitions=0)

    def transport(self, process: str = "main", **kafka: int) -> Transport:
        return self._broker.transport(process)

    async def transaction(
        self, at: TopicPartition, values: Sequence[bytes], *, commit: bool
    ) -> None:
        log = self._broker.log(at)
        for value in values:
            if commit:
                log.append(None, value, (), self._broker.stamp(), 1)
            else:
                log.append_marker()
        log.append_marker()

    async def delete_before(self, at: TopicPartition, offset: int) -> None:
        self._broker.log(at).delete_before(offset)

    async def append_unreadable(self, at: TopicPartition) -> None:
        self._broker.log(at).append_unreadable(b"raw", self._broker.stamp(), 3)


class Real(Broker):
    """What is spoken to over a socket."""

    _bootstrap: str

    def transport(self, process: str = "main", **kafka: int) -> Transport:
        return KafkaTransport(KafkaConfig(bootstrap=self._bootstrap, **{**FAST, **kafka}))

    async def append_unreadable(self, at: TopicPartition) -> None:
        await self.append_raw(at, batch([record(0), record(1, length=-1), record(2)], codec="zstd"))

    async def append_raw(self, at: TopicPartition, batch: bytes) -> None:
        async with RawProducer(self._bootstrap) as producer:
            await producer.send(at, batch)


class Embedded(Real):
    can = frozenset({"network", "raw_batches", "topics_on_first_use"})

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._bootstrap = request.getfixturevalue("embedded")

    async def topic(self, settings: Mapping[str, str] = {}) -> str:
        name = fresh("topic")
        async with running(self.transport().producer("first")) as producer:
            assert await producer.partitions(name) == PARTITIONS
        return name


class Kafka(Real):
    can = frozenset(
        {
            "create_topics",
            "describe_configs",
            "disk",
            "log_append_time",
            "metadata_bound",
            "missing_topics",
            "network",
            "raw_batches",
            "retention",
            "several_members",
            "transactions",
        }
    )

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._bootstrap = request.getfixturevalue("kafka")
        self._node: LocalKafka = request.getfixturevalue("kafka_node")

    def rot(self, at: TopicPartition, value: bytes) -> None:
        folder = self._node.node(1).folder / "data" / f"{at.topic}-{at.partition}"
        [segment] = folder.glob("*.log")
        data = segment.read_bytes()
        with segment.open("r+b") as file:
            file.seek(data.index(value))
            file.write(bytes([value[0] ^ 0xFF]))

    async def transaction(
        self, at: TopicPartition, values: Sequence[bytes], *, commit: bool
    ) -> None:
        producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap, transactional_id=fresh("transaction")
        )
        async with producer, running(self.transport().reader("end")) as reader:
            end = (await reader.ends([at]))[at] + len(values) + 1
            await producer.begin_transaction()
            for value in values:
                await producer.send_and_wait(at.topic, value, partition=at.partition)
            await (producer.commit_transaction() if commit else producer.abort_transaction())
            async with asyncio.timeout(30):  # its marker is written after the answer
                while (await reader.ends([at]))[at] < end:
                    pass

    async def delete_before(self, at: TopicPartition, offset: int) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap)
        await admin.start()
        try:
            where = KafkaTopicPartition(*at)
            await admin.delete_records({where: RecordsToDelete(before_offset=offset)})
        finally:
            await admin.close()


BROKERS: Final[dict[str, type[Broker]]] = {
    "memory": Memory,
    "embedded": Embedded,
    "kafka": Kafka,
}


def where(*needed: str) -> pytest.MarkDecorator:
    """Run a test on every implementation that can do all of what it needs."""
    return pytest.mark.parametrize(
        "broker",
        [
            pytest.param(name, marks=[pytest.mark.kafka] if name == "kafka" else [])
            for name, kind in BROKERS.items()
            if kind.can.issuperset(needed)
        ],
        indirect=True,
    )


Callback = Callable[[Collection[TopicPartition]], Coroutine[Any, Any, None]]


class Listener:
    """Notes what it is told, and does what the test wants done in the callback."""

    def __init__(
        self, *, on_revoked: Callback | None = None, on_assigned: Callback | None = None
    ) -> None:
        self.told: list[tuple[str, frozenset[TopicPartition]]] = []
        self._changed = asyncio.Event()
        self._on_revoked = on_revoked
        self._on_assigned = on_assigned

    @property
    def owned(self) -> frozenset[TopicPartition]:
        """What it was assigned last."""
        return next((p for what, p in reversed(self.told) if what == "assigned"), frozenset())

    async def owns(self, partitions: int) -> None:
        """Wait until so many partitions are assigned, and nothing is being revoked."""
        while not (self.told and self.told[-1][0] == "assigned" and len(self.owned) == partitions):
            self._changed.clear()
            await self._changed.wait()

    async def hears(self, what: str, times: int = 1) -> None:
        """Wait until it was told so often."""
        while sum(each == what for each, _ in self.told) < times:
            self._changed.clear()
            await self._changed.wait()

    async def revoked(self, partitions: Collection[TopicPartition]) -> None:
        self._note("revoked", partitions)
        if self._on_revoked is not None:
            await self._on_revoked(partitions)

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        self._note("assigned", partitions)
        if self._on_assigned is not None:
            await self._on_assigned(partitions)

    def _note(self, what: str, partitions: Collection[TopicPartition]) -> None:
        self.told.append((what, frozenset(partitions)))
        self._changed.set()


@asynccontextmanager
async def running(client: Any) -> AsyncIterator[Any]:
    """Start a client, and stop it however the test ends."""
    await client.start()
    try:
        yield client
    finally:
        await client.stop()


async def seen(admin: Admin, names: Collection[str]) -> dict[str, TopicState]:
    """Topics, once all of them can be seen: brokers hear of new ones a moment later."""
    async with asyncio.timeout(30):
        while len(found := await admin.topics(names)) < len(names):
            pass
    return found


async def fill(
    broker: Broker, topic: str, records: int, partitions: Collection[int] = range(PARTITIONS)
) -> None:
    """Append `b"0"`, `b"1"`, ... to each of the partitions."""
    async with running(broker.transport().producer("filler")) as producer:
        sent: list[asyncio.Future[Acked]] = [
            await producer.send(topic, b"%d" % number, partition=partition)
            for partition in partitions
            for number in range(records)
        ]
        await asyncio.gather(*sent)


async def drain(
    client: GroupConsumer | Reader, count: int | None = None
) -> dict[int, list[Record]]:
    """So many records, or what comes until nothing does, by partition."""
    found: dict[int, list[Record]] = {}
    while count is None or sum(map(len, found.values())) < count:
        batches = await client.fetch(QUIET_MS)
        if not batches and count is None:
            break
        for at, records in batches.items():
            found.setdefault(at.partition, []).extend(records)
    return found


def values(found: Mapping[int, Sequence[Record]]) -> dict[int, list[bytes | None]]:
    """What was read, by partition."""
    return {partition: [record.value for record in batch] for partition, batch in found.items()}
