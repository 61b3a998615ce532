"""Nothing that a record says ends a process or stops a partition: extremes of every event, on every
topic of a running pipeline, with good questions among them, and once more when all is read back.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

from extreme_events import KINDS, extreme_event, extreme_headers
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from anabranch.client import Client
from anabranch.config.settings import Config, CoordinatorConfig, TopicsConfig, TypeConfig
from anabranch.contract.events import Item
from anabranch.coordinator import Coordinator
from anabranch.kafka.topics import MAX_MESSAGE_BYTES, Topics, ensure_topics
from anabranch.kafka.transport import Producer, TopicPartition
from anabranch.layers.api import LayerSpec, Request, layer
from anabranch.testing import MemoryBroker, VirtualClock, run
from anabranch.worker import Worker

CONFIG = Config(
    topics=TopicsConfig(queries=2, tasks=2),
    types={"t": TypeConfig(layers=["a", "b"])},
    coordinator=CoordinatorConfig(reply_topics=["*"]),
)
TOPICS = Topics(CONFIG.namespace)
RECORDS = 60
NAMES: dict[str, Sequence[Any]] = {
    "id": ["old-1", "old-2", "x"],
    "query": ["old-1", "old-2", "x"],
    "offset": [0, 1, 2, 3, 4, 50, 2**53],
    "partition": [0, 1],
    "type": ["t", "z"],
    "timeout_ms": [1, 500, 5_000, 2**53],
    "reply_to": ["anabranch.results", "nowhere", "a/b", "x" * 249],
    "generation": [0, 1, 2**53],
    "instance": ["w9", "c9"],
    "priority": ["critical", "low"],
}
ASKED = ["a", "b", "z"]
"""Layers that questions, tasks and results may speak of; who announces one may redirect it."""


@layer("a")
async def quick(request: Request) -> Sequence[Item]:
    await asyncio.sleep(0.005)
    return [Item("urn:a", 1.0)]


@layer("b")
async def slow(request: Request) -> Sequence[Item]:
    await asyncio.sleep(0.05)
    return [Item("urn:b", 1.0)]


@settings(max_examples=25, phases=[Phase.explicit, Phase.generate])
@example(seed=1, mode="at_least_once")
@example(seed=2, mode="exactly_once")
@given(seed=st.integers(0, 10_000_000), mode=st.sampled_from(["at_least_once", "exactly_once"]))
def test_no_event_ends_anything_and_good_questions_are_answered(seed: int, mode: Any) -> None:
    run(scenario(random.Random(seed), mode))


async def scenario(rng: random.Random, mode: Any) -> None:
    config = Config(
        mode=mode,
        topics=CONFIG.topics,
        types=CONFIG.types,
        coordinator=CONFIG.coordinator,
    )
    broker = MemoryBroker(default_partitions=0)
    await ensure_topics(broker.transport(), config, ["default"])
    async with AsyncExitStack() as stack:
        worker = Worker(
            config,
            layers=[LayerSpec(quick), LayerSpec(slow)],
            transport=broker.transport("w"),
            clock=VirtualClock(),
        )
        await stack.enter_async_context(worker)
        client = Client(config, transport=broker.transport("client"))
        async with coordinator(broker, config, "c1") as first:
            await stack.enter_async_context(client)
            await worker.ready()
            await first.ready()
            await ask(client, rng, "first", 3)
            producer = broker.transport("stranger").producer("stranger")
            await stack.enter_async_context(closing(producer))
            for _ in range(RECORDS):
                await send(rng, producer, broker)
                if rng.random() < 0.1:
                    await ask(client, rng, "among", 1)
            await ask(client, rng, "last", 3)
            await asyncio.sleep(20.0)  # whatever is done now and then is done with it
        async with coordinator(broker, config, "c2") as second:
            await second.ready()
            await ask(client, rng, "later", 3)
            await asyncio.sleep(20.0)
        assert broker.records(TOPICS.dlq)


def coordinator(broker: MemoryBroker, config: Config, name: str) -> Coordinator:
    return Coordinator(config, transport=broker.transport(name), clock=VirtualClock())


class closing:  # noqa: N801  # as in contextlib
    """A client that is started and stopped."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer

    async def __aenter__(self) -> None:
        await self._producer.start()

    async def __aexit__(self, *_: object) -> None:
        await self._producer.stop()


async def ask(client: Client, rng: random.Random, what: str, count: int) -> None:
    for _ in range(count):
        answer = await client.ask(
            "t", {"n": rng.random()}, timeout_ms=30_000, id=f"{what}-{rng.getrandbits(60)}"
        )
        assert answer.status == "complete", answer


async def send(rng: random.Random, producer: Producer, broker: MemoryBroker) -> None:
    """One record that nobody should have written, on any topic."""
    topic = rng.choice([*KINDS])
    kind = rng.choice(KINDS[topic])
    names = NAMES | ({} if topic in ("health", "control") else {"layer": ASKED, "layers": ASKED})
    value = extreme_event(rng, kind, names)
    name = TOPICS.tasks("default", "high") if topic == "tasks" else f"{CONFIG.namespace}{topic}"
    at = TopicPartition(name, rng.randrange(broker.count(name)))
    if rng.random() < 0.05:
        broker.log(at).append_unreadable(value[:1_000], broker.stamp(), rng.randint(1, 3))
        return
    room = MAX_MESSAGE_BYTES - 50_000 - len(value)
    if room > 0:
        headers = extreme_headers(rng, room if rng.random() < 0.1 else min(room, 2_000))
        await producer.send_and_wait(
            name, value, key=key_of(rng, topic), partition=at.partition, headers=headers
        )


def key_of(rng: random.Random, topic: str) -> bytes | None:
    keys: list[bytes | None] = [b"", b"\xff\xfe", b"k" * 10_000, b"x"]
    if topic == "health":
        keys = [b"member/worker/w9", b"layer/zz/z", b"stats/c9", b"layer/", b"///", b"\xff"]
    elif topic != "control":
        keys.append(None)
    return rng.choice(keys)
