"""Mutated records on every topic of a running pipeline, and good queries in between.

FUZZ=100000 FUZZ_SEED=7 python -m pytest tests/chaos/test_fuzz.py
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from chaos_checker import stuck
from fleet import SETTINGS, Fleet, check_content
from sim_fuzz import mutate

from anabranch.config import Config, load
from anabranch.events import ControlRecord, encode
from anabranch.kafka.client import KafkaTransport
from anabranch.kafka.topics import Topics, ensure_topics

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(900)]

COUNT = int(os.environ.get("FUZZ", "20000"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))
GOOD = 500


class Sample(NamedTuple):
    """A record as the pipeline wrote it."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes
    headers: Any


@pytest.fixture
async def fleet(kafka: str, tmp_path: Path) -> AsyncIterator[tuple[Config, Fleet]]:
    path = tmp_path / "anabranch.toml"
    text = SETTINGS.format(namespace=f"f{uuid4().hex[:8]}.", mode="at_least_once", bootstrap=kafka)
    path.write_text(text.replace("[types.t]", "[topics]\nqueries = 4\ntasks = 4\n[types.t]"))
    config = load(path, environ={})
    await ensure_topics(KafkaTransport(config.kafka), config, config.groups)
    fleet = Fleet(path)
    for name, command in {
        "c1": ("coordinator",),
        "c2": ("coordinator",),
        "w1": ("worker",),
        "w2": ("worker", "--group", "cpu"),
    }.items():
        await fleet.start(name, *command)
    try:
        await fleet.ready()
        yield config, fleet
    finally:
        await fleet.kill_all()


@asynccontextmanager
async def producing(config: Config) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(
        bootstrap_servers=config.kafka.bootstrap, max_batch_size=262_144, max_request_size=5_000_000
    )
    async with producer:
        yield producer


async def ask(producer: AIOKafkaProducer, topic: str, prefix: str, count: int, first: int) -> None:
    for n in range(first, first + count):
        query = {"id": f"{prefix}{n}", "type": "t", "params": {"n": n}, "timeout_ms": 60_000}
        await producer.send(topic, json.dumps(query).encode())
        await asyncio.sleep(0.01)


async def samples(config: Config) -> list[Sample]:
    """What is on every topic after some ordinary work."""
    topics = Topics(config.namespace)
    names = [
        topics.queries, topics.results, topics.partials, topics.health, topics.control,
        topics.telemetry, *(t for g in config.groups for t in topics.tasks_of(g)),
    ]  # fmt: skip
    consumer = AIOKafkaConsumer(
        *names, bootstrap_servers=config.kafka.bootstrap, auto_offset_reset="earliest"
    )
    found = []
    async with consumer:
        for _ in range(10):  # members never cease to say how they are
            batches = await consumer.getmany(timeout_ms=500)
            found += [
                Sample(r.topic, r.partition, r.key, r.value, r.headers)
                for records in batches.values()
                for r in records
                if r.value
            ]
    return found


async def answered(config: Config, prefix: str, count: int, within_s: float) -> dict[str, Any]:
    consumer = AIOKafkaConsumer(
        Topics(config.namespace).results,
        bootstrap_servers=config.kafka.bootstrap,
        auto_offset_reset="earliest",
    )
    found: dict[str, Any] = {}
    loop = asyncio.get_running_loop()
    until = loop.time() + within_s
    async with consumer:
        while len(found) < count and loop.time() < until:
            for records in (await consumer.getmany(timeout_ms=500)).values():
                for record in records:
                    if record.key and record.key.decode(errors="replace").startswith(prefix):
                        found.setdefault(record.key.decode(), json.loads(record.value))
    return found


async def buried(config: Config) -> int:
    """How many dead letters there are."""
    at = TopicPartition(Topics(config.namespace).dlq, 0)
    async with AIOKafkaConsumer(bootstrap_servers=config.kafka.bootstrap) as consumer:
        ends = await consumer.end_offsets([at])
    print(f"{ends[at]:,} dead letters of {COUNT:,} records")
    return int(ends[at])


def garbage(rng: random.Random, sample: Sample) -> tuple[bytes | None, bytes | None]:
    """Key and value. Who may announce layers may redirect them: announcements become unreadable."""
    if sample.key and sample.key.startswith(b"layer/"):
        return b"layer/" + rng.randbytes(4).hex().encode(), rng.randbytes(40)
    key = sample.key if rng.random() < 0.5 else b"fuzz-%d" % rng.getrandbits(30)
    if sample.topic.endswith("results"):
        key = b"fuzz-%d" % rng.getrandbits(30)
    return key, mutate(rng, sample.value)


async def test_no_record_crashes_anything_and_good_queries_are_answered(
    fleet: tuple[Config, Fleet],
) -> None:
    config, processes = fleet
    topics, rng = Topics(config.namespace), random.Random(SEED)
    async with producing(config) as producer:
        order = ControlRecord(action="invalidate", layer="a", scope="nobody")
        await producer.send(topics.control, encode(order), key=b"k", partition=0)
        await ask(producer, topics.queries, "w", 200, 0)
        assert len(await answered(config, "w", 200, 60)) == 200
        known = await samples(config)
        by_topic: dict[str, list[Sample]] = {}
        for sample in known:
            by_topic.setdefault(sample.topic, []).append(sample)
        good = asyncio.create_task(ask(producer, topics.queries, "g", GOOD, 1_000_000))
        sent = []
        for _ in range(COUNT):
            sample = rng.choice(by_topic[rng.choice(sorted(by_topic))])
            key, value = garbage(rng, sample)
            headers = (
                list(sample.headers) if rng.random() < 0.5 else [("traceparent", rng.randbytes(9))]
            )
            sent.append(
                await producer.send(
                    sample.topic, value, key=key, partition=sample.partition, headers=headers
                )
            )
            if len(sent) % 500 == 0:
                await asyncio.sleep(0)
        await asyncio.gather(*sent)
        await good
    found = await answered(config, "g", GOOD, 150)
    ended = {n: p.returncode for n, p in processes.processes.items() if p.returncode is not None}
    last = {name: processes.log(name).read_text()[-2_000:] for name in ended}
    assert not ended, last
    assert len(found) == GOOD
    for id_, answer in found.items():
        assert answer["status"] == "complete", answer
        check_content(answer, int(id_[1:]))
    async with asyncio.timeout(120):
        while await stuck(config):  # noqa: ASYNC110  # asked of the broker
            await asyncio.sleep(1)
    assert await buried(config) > COUNT // 20, "most of it is unreadable, and nothing is lost"
    codes = await processes.stop()
    assert set(codes.values()) == {0}, codes
