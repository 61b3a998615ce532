"""Topics that change under a pipeline: the procedures of docs/guarantees.md, on Apache Kafka."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, RecordsToDelete
from fleet import answers
from msgspec import convert, to_builtins
from pipelines import found, layers_of

from anabranch.config.settings import Config, KafkaConfig, TopicsConfig, TypeConfig
from anabranch.contract.codec import encode
from anabranch.contract.events import Query
from anabranch.coordinator import Coordinator
from anabranch.errors import StageFailed
from anabranch.kafka.client import KafkaTransport
from anabranch.kafka.topics import Topics, ensure_topics
from anabranch.worker import Worker

pytestmark = pytest.mark.kafka


@pytest.fixture
async def config(kafka: str) -> Config:
    config = Config(
        namespace=f"c{uuid4().hex[:8]}.",
        kafka=KafkaConfig(bootstrap=kafka),
        topics=TopicsConfig(queries=2, tasks=2),
        types={"t": TypeConfig(layers=["a"])},
    )
    await ensure_topics(KafkaTransport(config.kafka), config, ["default"])
    return config


@asynccontextmanager
async def admin_of(config: Config) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=config.kafka.bootstrap)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


@asynccontextmanager
async def working(config: Config) -> AsyncIterator[Coordinator]:
    specs = layers_of({"a": found("a")}, "default")
    async with Worker(config, "default", specs) as worker, Coordinator(config) as coordinator:
        await worker.ready()
        await coordinator.ready()
        yield coordinator


async def ask(config: Config, *ids: str, partition: int) -> None:
    async with AIOKafkaProducer(bootstrap_servers=config.kafka.bootstrap) as producer:
        for id_ in ids:
            query = Query(id=id_, type="t", layers=["a"], params={"n": id_}, timeout_ms=20_000)
            topic = Topics(config.namespace).queries
            await producer.send_and_wait(topic, encode(query), partition=partition)


async def test_what_retention_took_is_said_and_what_is_left_is_answered(
    config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    async with working(config):
        await ask(config, "before", partition=0)
        assert set(await answers(config, 1, within_s=30)) == {"before"}
    await ask(config, "lost1", "lost2", partition=0)  # nobody is there
    async with admin_of(config) as admin:
        at = TopicPartition(Topics(config.namespace).queries, 0)
        await admin.delete_records({at: RecordsToDelete(before_offset=3)})
    await ask(config, "kept", partition=0)
    with caplog.at_level(logging.WARNING):
        async with working(config):
            assert set(await answers(config, 2, within_s=30)) == {"before", "kept"}
    (said,) = [text for text in caplog.messages if "retention took" in text]
    assert "begins at 3, but was answered only up to 1" in said


async def test_added_partitions_are_read_after_a_restart(config: Config) -> None:
    topics = Topics(config.namespace)
    async with working(config):
        await ask(config, "q0", partition=0)
        async with admin_of(config) as admin:
            joined = (topics.queries, topics.partials, topics.results)
            await admin.create_partitions({name: NewPartitions(4) for name in joined})
        await ask(config, "q1", partition=1)
        assert set(await answers(config, 2, within_s=30)) == {"q0", "q1"}, "it works on meanwhile"
    async with working(config) as coordinator:
        await ask(config, "q2", partition=2)
        await ask(config, "q3", partition=3)
        found_ = await answers(config, 4, within_s=30)
        assert sorted(coordinator.query.owned) == [0, 1, 2, 3]
    assert set(found_) == {"q0", "q1", "q2", "q3"}
    assert {answer["status"] for given in found_.values() for answer in given} == {"complete"}


async def test_a_topic_that_is_deleted_ends_the_coordinator_with_its_name(config: Config) -> None:
    queries = Topics(config.namespace).queries
    with pytest.raises(StageFailed, match=f"{queries} is gone.*`anabranch topics`"):  # noqa: PT012
        async with asyncio.timeout(90), working(config):
            async with admin_of(config) as admin:
                await admin.delete_topics([queries])
            await asyncio.Event().wait()


async def test_a_topic_made_anew_has_new_queries_under_old_offsets(config: Config) -> None:
    """Answers and partials of the old ones, which are still there, are not taken for theirs."""
    queries = Topics(config.namespace).queries
    old, new = ("old0", "old1", "old2"), ("new0", "new1", "new2", "new3")
    with suppress(StageFailed):  # if the client's metadata never showed that it was away
        async with working(config):
            await ask(config, *old, partition=0)
            await answers(config, len(old), within_s=30)
            async with admin_of(config) as admin:
                await admin.delete_topics([queries])
            await ensure_topics(KafkaTransport(config.kafka), config, ["default"])
            await ask(config, *new[:1], partition=0)
            await answers(config, len(old) + 1, within_s=30)
    async with working(config):
        await ask(config, *new[1:], partition=0)
        found_ = await answers(config, len(old) + len(new), within_s=30)
    for id_ in new:
        (answer,) = found_[id_]
        assert answer["status"] == "complete"
        assert [item["id"] for item in answer["items"]] == [f"urn:{id_}:a"]


@pytest.mark.parametrize("mode", ["at_least_once", "exactly_once"])
async def test_a_repeat_after_a_clean_restart_gets_no_answer(config: Config, mode: str) -> None:
    config = convert(to_builtins(config) | {"mode": mode}, Config)
    async with working(config):
        await ask(config, "q0", "q1", "q2", partition=0)
        assert len(await answers(config, 3, within_s=30)) == 3
    async with working(config):
        await ask(config, "q0", "q2", "new", partition=0)
        found_ = await answers(config, 4, within_s=30)
    assert {id_: len(given) for id_, given in found_.items()} == dict.fromkeys(
        ("q0", "q1", "q2", "new"), 1
    )


async def test_every_log_may_be_trimmed_while_it_is_followed(config: Config) -> None:
    topics = Topics(config.namespace)
    followed = (topics.queries, topics.partials, topics.telemetry, topics.tasks_of("default")[2])
    async with working(config):
        await ask(config, "q0", partition=0)
        await answers(config, 1, within_s=30)
        async with admin_of(config) as admin:
            for topic in followed:
                at = TopicPartition(topic, 0)
                await admin.delete_records({at: RecordsToDelete(before_offset=-1)})
        await ask(config, "q1", partition=0)
        found_ = await answers(config, 2, within_s=30)
    async with working(config):
        await ask(config, "q2", partition=0)
        found_ = await answers(config, 3, within_s=30)
    assert [answer["status"] for given in found_.values() for answer in given] == ["complete"] * 3
