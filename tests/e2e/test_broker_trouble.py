"""A broker that throttles: everything waits, nothing is lost, and nobody ends."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from pipelines import layers_of

from anabranch.config.settings import Config, KafkaConfig, TopicsConfig, TypeConfig
from anabranch.contract.codec import encode
from anabranch.contract.events import Query
from anabranch.coordinator import Coordinator
from anabranch.dev.kafka_jars import java, kafka_jars
from anabranch.dev.local_kafka import LocalKafka
from anabranch.kafka.client import KafkaTransport
from anabranch.kafka.topics import Topics, ensure_topics
from anabranch.layers.api import Item, Request
from anabranch.worker import Worker

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

QUOTA = 40_000
"""Bytes a second, of each client and in each direction."""
ITEM_BYTES = 4_000
QUERIES = 60


@pytest.fixture
def throttling() -> Iterator[LocalKafka]:
    """A Kafka with a quota for everybody, whose bursts are short."""
    with LocalKafka(settings={"quota.window.num": "3"}) as kafka:
        rates = f"producer_byte_rate={QUOTA},consumer_byte_rate={QUOTA}"
        command = [
            java(), "-cp", f"{kafka_jars()}/*", "kafka.admin.ConfigCommand",
            "--bootstrap-server", kafka.bootstrap, "--alter", "--add-config", rates,
            "--entity-type", "clients", "--entity-default",
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
        yield kafka


async def much(request: Request) -> list[Item]:
    return [Item(f"urn:{request.params['n']}", 1.0, {"text": "x" * ITEM_BYTES})]


@pytest.mark.parametrize("mode", ["at_least_once", "exactly_once"])
async def test_under_a_quota_all_is_answered_at_its_rate(throttling: LocalKafka, mode: str) -> None:
    config = Config(
        namespace="quota.",
        mode="exactly_once" if mode == "exactly_once" else "at_least_once",
        kafka=KafkaConfig(bootstrap=throttling.bootstrap),
        topics=TopicsConfig(queries=2, tasks=2),
        types={"t": TypeConfig(layers=["a"])},
    )
    await ensure_topics(KafkaTransport(config.kafka), config, ["default"])
    async with AsyncExitStack() as stack:
        worker = Worker(config, "default", layers_of({"a": much}, "default"))
        await stack.enter_async_context(worker)
        coordinator = await stack.enter_async_context(Coordinator(config))
        await worker.ready()
        await coordinator.ready()
        asked_ms = await _ask(config)
        answers, ended_ms = await _answers(config)
    assert [answer["status"] for answer in answers] == ["complete"] * QUERIES
    assert len({answer["id"] for answer in answers}) == QUERIES, "one each"
    least_ms = 1000 * (QUERIES * ITEM_BYTES - 3 * QUOTA) / QUOTA  # three seconds' worth at once
    assert ended_ms - asked_ms > least_ms / 2, "it was not throttled, so this shows nothing"


async def _ask(config: Config) -> int:
    """When it began, on the broker's clock."""
    topic = Topics(config.namespace).queries
    async with AIOKafkaProducer(bootstrap_servers=config.kafka.bootstrap) as producer:
        queries = [Query(f"q{n}", "t", params={"n": n}, timeout_ms=60_000) for n in range(QUERIES)]
        sent = [await producer.send_and_wait(topic, encode(query)) for query in queries]
    return min(record.timestamp for record in sent)


async def _answers(config: Config) -> tuple[list[dict[str, object]], int]:
    found, ended_ms = [], 0
    async with AIOKafkaConsumer(
        Topics(config.namespace).results, bootstrap_servers=config.kafka.bootstrap,
        auto_offset_reset="earliest", isolation_level="read_committed",
    ) as consumer:  # fmt: skip
        while len(found) < QUERIES:
            record = await consumer.getone()
            found.append(json.loads(record.value))
            ended_ms = max(ended_ms, record.timestamp)
        assert not await consumer.getmany(timeout_ms=2_000)
    return found, ended_ms
