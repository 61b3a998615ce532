"""A topic that is missing is named at once, with what to do; nobody waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from anabranch.admin.dead_letters import read_letters
from anabranch.admin.diagnostics import Diagnostics
from anabranch.cli.replay import read_topic
from anabranch.client import Client
from anabranch.config.settings import Config
from anabranch.coordinator import Coordinator
from anabranch.errors import TopicError
from anabranch.kafka.topics import Topics, ensure_topics
from anabranch.kafka.transport import Transport
from anabranch.layers.api import Item, LayerSpec, Request, layer
from anabranch.testing import run
from anabranch.testing.memory import MemoryBroker
from anabranch.testing.virtual_time import VirtualClock
from anabranch.worker import Worker

CONFIG = Config()
TOPICS = Topics(CONFIG.namespace)


@layer("a")
async def nothing(request: Request) -> list[Item]:
    return []


async def coordinator(transport: Transport) -> None:
    async with Coordinator(CONFIG, transport=transport, clock=VirtualClock()):
        pass


async def worker(transport: Transport) -> None:
    clock = VirtualClock()
    async with Worker(CONFIG, layers=[LayerSpec(nothing)], transport=transport, clock=clock):
        pass


async def client(transport: Transport) -> None:
    async with Client(CONFIG, transport=transport):
        pass


async def diagnostics(transport: Transport) -> None:
    async with Diagnostics(CONFIG, transport=transport):
        pass


async def dead_letters(transport: Transport) -> None:
    await read_letters(transport.reader("r"), TOPICS)


async def replay(transport: Transport) -> None:
    await read_topic(transport, TOPICS.telemetry)


Begin = Callable[[Transport], Awaitable[None]]

NEEDS: dict[Begin, tuple[str, ...]] = {
    coordinator: TOPICS.all_but_tasks,
    worker: (TOPICS.health, TOPICS.partials, TOPICS.dlq, *TOPICS.tasks_of("default")),
    client: (TOPICS.queries, TOPICS.results),
    diagnostics: (TOPICS.health, TOPICS.control),
    dead_letters: (TOPICS.dlq,),
    replay: (TOPICS.telemetry,),
}


@pytest.mark.parametrize("begin", NEEDS, ids=lambda begin: begin.__name__)
def test_all_that_is_missing_is_named_at_once(
    begin: Callable[[Transport], Awaitable[None]],
) -> None:
    async def scenario() -> None:
        broker = MemoryBroker(default_partitions=0)
        with pytest.raises(TopicError) as raised:
            await begin(broker.transport())
        listed = ", ".join(NEEDS[begin])
        assert str(raised.value) == (
            f"there is no topic {listed}; create it with `anabranch topics`"
        )
        assert asyncio.get_running_loop().time() < 1, "it waited"

    run(scenario())


@pytest.mark.parametrize("begin", NEEDS, ids=lambda begin: begin.__name__)
def test_with_all_topics_everybody_starts(begin: Begin) -> None:
    async def scenario() -> None:
        transport = MemoryBroker(default_partitions=0).transport()
        await ensure_topics(transport, CONFIG, ["default"])
        await begin(transport)

    run(scenario())
