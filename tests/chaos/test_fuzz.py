"""Records that nobody should have written, on every topic of a running pipeline, and good queries.

Some are mutated copies of what the pipeline itself wrote, some as extreme as their schemas allow;
some come through a second client, in every codec, and some are batches as no client makes them.

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
from aiokafka.errors import KafkaError
from chaos_checker import stuck
from confluent_kafka import Producer as OtherProducer
from extreme_events import KINDS, Names, extreme_event, extreme_headers
from fleet import SETTINGS, Fleet, check_content
from raw_batches import CODECS, batch, record
from raw_producer import RawProducer
from sim_fuzz import mutate

from anabranch.config.settings import Config, load
from anabranch.contract.codec import encode
from anabranch.contract.events import ControlRecord
from anabranch.kafka.client import KafkaTransport
from anabranch.kafka.topics import Topics, ensure_topics
from anabranch.kafka.transport import TopicPartition as Place

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(900)]

COUNT = int(os.environ.get("FUZZ", "20000"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))
GOOD = 500


NAMES: Names = {
    "id": ["fuzz-1", "fuzz-2"],
    "query": ["fuzz-1", "w1", "w2"],
    "offset": [0, 1, 2, 3, 2**53],
    "partition": [0, 1, 2, 3],
    "type": ["t", "z"],
    "timeout_ms": [1, 500, 5_000],
    "reply_to": ["nowhere", "a/b", "x" * 249],
    "instance": ["w9", "c9"],
}
LAYERS: Names = {"layer": ["a", "b", "c", "z"], "layers": ["a", "b", "c", "z"]}
"""Not on `health`: who may announce layers may redirect them."""


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
    """Answers by id; read by our own client, as no other would get through."""
    reader = KafkaTransport(config.kafka).reader("fuzz")
    await reader.start()
    topic = Topics(config.namespace).results
    places = [Place(topic, n) for n in range(await reader.partitions(topic))]
    found: dict[str, Any] = {}
    loop = asyncio.get_running_loop()
    until = loop.time() + within_s
    try:
        reader.assign(dict.fromkeys(places, 0))
        while len(found) < count and loop.time() < until:
            for records in (await reader.fetch(500)).values():
                for record in records:
                    if record.key and record.key.decode(errors="replace").startswith(prefix):
                        found.setdefault(record.key.decode(), json.loads(record.value or b""))
    finally:
        await reader.stop()
    return found


async def buried(config: Config) -> int:
    """How many dead letters there are."""
    at = TopicPartition(Topics(config.namespace).dlq, 0)
    async with AIOKafkaConsumer(bootstrap_servers=config.kafka.bootstrap) as consumer:
        ends = await consumer.end_offsets([at])
    print(f"{ends[at]:,} dead letters of {COUNT:,} records")
    return int(ends[at])


class Written(NamedTuple):
    """A record that nobody should have written."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


def garbage(rng: random.Random, sample: Sample) -> Written:
    """What takes a sample's place."""
    headers = list(sample.headers) if rng.random() < 0.5 else [("traceparent", rng.randbytes(9))]
    if sample.key and sample.key.startswith(b"layer/"):  # announcements become unreadable
        return Written(b"layer/" + rng.randbytes(4).hex().encode(), rng.randbytes(40), headers)
    key = sample.key if rng.random() < 0.5 else b"fuzz-%d" % rng.getrandbits(30)
    if sample.topic.endswith("results"):
        key = b"fuzz-%d" % rng.getrandbits(30)
    return Written(key, mutate(rng, sample.value), headers)


def extreme(rng: random.Random, topic: str) -> Written:
    """As extreme as its schema allows, and now and then more so; below a megabyte mostly."""
    name = "tasks" if ".tasks." in topic else topic.rpartition(".")[2]
    names = NAMES if name in ("health", "control") else {**NAMES, **LAYERS}
    value = extreme_event(rng, rng.choice(KINDS[name]), names)
    if len(value) > 100_000 and rng.random() < 0.9:
        value = value[:50_000]
    key = b"layer/fuzz/z" if name == "health" else b"fuzz-%d" % rng.getrandbits(30)
    return Written(key, value, extreme_headers(rng, 2_000_000 if rng.random() < 0.002 else 2_000))


def damaged(rng: random.Random) -> bytes:
    """A batch that no client would make; the broker refuses some of them."""
    name = rng.randbytes(rng.randint(0, 6))
    records = [
        record(0, rng.randbytes(20), b"fuzz-x", [(name, None), (b"anabranch-client", b"\xff")]),
        record(rng.choice((1, 1, 0, -1, 2**31 - 1)), b"{}", headers=[(b"\xff\xfe", b"1")]),
        record(2, b"{}", length=rng.choice((None, None, -1, 2**31 - 1))),
    ]
    raw = batch(records, codec=rng.choice([*CODECS]))
    if rng.random() < 0.1:
        raw = batch([record(0, b"\x00" * 70_000_000)], codec=rng.choice(["zstd", "zstd", "gzip"]))
    return raw


class Second:
    """A second client: librdkafka, with a producer for each codec; and what no client sends."""

    def __init__(self, bootstrap: str, raw: RawProducer) -> None:
        self._producers = [
            OtherProducer(
                {
                    "bootstrap.servers": bootstrap,
                    "compression.type": codec,
                    "message.max.bytes": 4_500_000,
                    "queue.buffering.max.messages": 1_000_000,
                }
            )
            for codec in CODECS
        ]
        self._raw = raw
        self.refused = 0

    def send(self, rng: random.Random, sample: Sample, written: Written) -> None:
        producer = rng.choice(self._producers)
        headers: list[tuple[str, Any]] = [
            (name, None if rng.random() < 0.1 else value) for name, value in written.headers
        ]
        producer.produce(
            sample.topic,
            written.value,
            key=written.key,
            partition=sample.partition,
            headers=headers,
            on_delivery=self._delivered,
        )
        producer.poll(0)

    async def damage(self, rng: random.Random, sample: Sample) -> None:
        try:
            await self._raw.send(Place(sample.topic, sample.partition), damaged(rng))
        except KafkaError:
            self.refused += 1

    async def flush(self) -> None:
        for producer in self._producers:
            assert await asyncio.to_thread(producer.flush, 60) == 0

    def _delivered(self, error: Any, _: Any) -> None:
        self.refused += error is not None


async def write(rng: random.Random, config: Config, known: list[Sample]) -> None:
    """`COUNT` records, on every topic."""
    by_topic: dict[str, list[Sample]] = {}
    for sample in known:
        by_topic.setdefault(sample.topic, []).append(sample)
    sent = []
    async with producing(config) as producer, RawProducer(config.kafka.bootstrap) as raw:
        second = Second(config.kafka.bootstrap, raw)
        for n in range(COUNT):
            sample = rng.choice(by_topic[rng.choice(sorted(by_topic))])
            if rng.random() < 0.01:
                await second.damage(rng, sample)
                continue
            written = garbage(rng, sample) if rng.random() < 0.6 else extreme(rng, sample.topic)
            if rng.random() < 0.3:
                second.send(rng, sample, written)
            else:
                key, value, headers = written
                where: dict[str, Any] = {"key": key, "partition": sample.partition}
                sent.append(await producer.send(sample.topic, value, headers=headers, **where))
            if n % 500 == 0:
                await asyncio.sleep(0)
        outcomes = await asyncio.gather(*sent, return_exceptions=True)
        await second.flush()
    refused = second.refused + sum(isinstance(outcome, Exception) for outcome in outcomes)
    print(f"{COUNT:,} records written, {refused:,} of them refused by the broker")
    assert refused < COUNT // 10


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
        good = asyncio.create_task(ask(producer, topics.queries, "g", GOOD, 1_000_000))
        await write(rng, config, known)
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
