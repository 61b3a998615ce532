"""A start before tens of thousands of queries that waited, or before megabytes of junk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import count

import pytest
from confluent_kafka import Producer
from pipelines import found, layers_of

from anabranch.client import Client
from anabranch.config.settings import (
    Config,
    CoordinatorConfig,
    KafkaConfig,
    TopicsConfig,
    TypeConfig,
)
from anabranch.coordinator import Coordinator
from anabranch.kafka.client import KafkaTransport
from anabranch.kafka.topics import Topics, ensure_topics
from anabranch.runtime.supervisor import until
from anabranch.worker import Worker

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

PARTITIONS = 12
TINY = b'{"id":"b%d","type":"t","timeout_ms":1}'
JUNK = 40
PATIENT_MS = 200_000
"""Whoever asks in a partition with a backlog waits until it is read, however slow the machine."""
_namespaces = count()


@pytest.fixture
async def config(kafka: str) -> Config:
    config = Config(
        namespace=f"backlog{next(_namespaces)}.",
        kafka=KafkaConfig(bootstrap=kafka),
        topics=TopicsConfig(queries=PARTITIONS, tasks=4),
        coordinator=CoordinatorConfig(max_timeout_ms=PATIENT_MS),
        types={"t": TypeConfig(layers=["a"])},
    )
    await ensure_topics(KafkaTransport(config.kafka), config, ["default"])
    return config


def write(config: Config, records: Iterator[tuple[str, int, bytes]], codec: str = "none") -> None:
    """Topic, partition and value; keyed by number, for compacted topics."""
    settings = {"bootstrap.servers": config.kafka.bootstrap, "compression.type": codec}
    # As few batches as there can be: all records of one are uncompressed at once.
    settings |= {"linger.ms": "1000", "batch.num.messages": "100000"}
    producer = Producer(settings | {"queue.buffering.max.messages": "200000"})
    for number, (topic, partition, value) in enumerate(records):
        producer.produce(topic, value, b"%d" % number, partition=partition)
        producer.poll(0)
    producer.flush()


class Observer:
    """The most that was handled between two turns of the loop."""

    def __init__(self, handled: Callable[[], int]) -> None:
        self._handled = handled
        self.most = 0

    async def watch(self) -> None:
        before = self._handled()
        while True:
            await asyncio.sleep(0.001)
            now = self._handled()
            self.most = max(self.most, now - before)
            before = now


@asynccontextmanager
async def pipeline(
    config: Config, handled: Callable[[Coordinator], int]
) -> AsyncIterator[tuple[Coordinator, Client, Observer]]:
    """What is started before what lies there; it ends with the test if anything of it dies."""
    coordinator = Coordinator(config)
    observer = Observer(lambda: handled(coordinator))
    watching = asyncio.create_task(observer.watch())
    worker = Worker(config, layers=layers_of({"a": found("a")}, "default"))
    async with worker, Client(config) as client, coordinator:
        await worker.ready()
        await coordinator.ready()
        yield coordinator, client, observer
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching


async def test_ninety_thousand_queries_that_waited_hold_up_neither_the_loop_nor_who_asks_now(
    config: Config,
) -> None:
    topic = Topics(config.namespace).queries
    write(config, ((topic, n % (PARTITIONS - 1), TINY % n) for n in range(60_000)))
    write(config, ((topic, 0, TINY % n) for n in range(60_000, 90_000)), codec="gzip")
    async with pipeline(config, lambda c: c.query.counters.queries) as (coordinator, client, seen):
        counters = coordinator.query.counters
        asked = [await client.ask("t", {"n": n}, timeout_ms=PATIENT_MS) for n in range(20)]
        await asyncio.wait_for(until(lambda: counters.answered >= 90_020), 200)
        asked += [await client.ask("t", {"n": n}, timeout_ms=60_000) for n in range(20, 60)]
        assert {answer.status for answer in asked} == {"complete"}
        assert counters.takeovers == 0, "it was taken over once, from nobody"
        assert seen.most <= 2_500


async def test_megabytes_of_junk_on_every_topic_are_read_a_few_at_a_time(config: Config) -> None:
    topics = Topics(config.namespace)
    places = (topics.health, topics.control, topics.partials, topics.telemetry, topics.queries)
    junk = b'{"id": "' + b"x" * 950_000
    for place in places:
        write(config, ((place, 0, junk) for _ in range(JUNK)))
    async with pipeline(config, lambda c: c.query.counters.dead_letters) as (c, client, seen):
        answer = await client.ask("t", {"n": 1}, timeout_ms=PATIENT_MS)
        assert answer.status == "complete"
        await asyncio.wait_for(until(lambda: c.query.counters.dead_letters >= 3 * JUNK), 100)
        assert seen.most <= JUNK // 2
