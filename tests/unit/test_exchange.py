"""What one coordinator learned, all others learn, and so does one that comes later."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

from anabranch.client import Client
from anabranch.config import Config, TopicsConfig, TypeConfig
from anabranch.coordinator import Coordinator
from anabranch.events import Item, LayerDescriptor, decode
from anabranch.kafka.topics import Topics, ensure_topics
from anabranch.layers import LayerSpec, Request, layer
from anabranch.learn.records import TelemetryBatch
from anabranch.select.decision import Decision, GroupLoad, PlanContext
from anabranch.supervise import until
from anabranch.testing.memory import MemoryBroker
from anabranch.testing.virtual_time import VirtualClock, run
from anabranch.worker import Worker

CONFIG = Config(
    types={"t": TypeConfig(layers=["slow", "quick"])}, topics=TopicsConfig(queries=2, tasks=2)
)
ASKED = 60


@layer("slow")
async def slow(request: Request) -> Sequence[Item]:
    await asyncio.sleep(0.2)
    return [Item(f"urn:{request.params['n']}:slow", 1.0)]


@layer("quick")
async def quick(request: Request) -> Sequence[Item]:
    await asyncio.sleep(0.005)
    return [Item(f"urn:{request.params['n']}:quick", 1.0)]


async def with_history(
    broker: MemoryBroker, body: Callable[[Coordinator], Awaitable[None]]
) -> None:
    """Run `body` beside a coordinator that has answered `ASKED` queries and told of them."""
    await ensure_topics(broker.transport(), CONFIG, ["default"])
    async with AsyncExitStack() as stack:
        specs = [LayerSpec(slow), LayerSpec(quick)]
        transport = broker.transport(process="w")
        worker = Worker(CONFIG, layers=specs, transport=transport, clock=VirtualClock())
        await stack.enter_async_context(worker)
        first = await stack.enter_async_context(coordinator(broker, "c1"))
        client = Client(CONFIG, transport=broker.transport(process="client"))
        await stack.enter_async_context(client)
        await worker.ready()
        await until(lambda: first.brain.directory.descriptor("quick"))
        await until(lambda: first.ownership.resumed.is_set())
        for n in range(ASKED):
            await client.ask("t", {"n": n}, timeout_ms=5_000)
        await until(lambda: told(broker) >= ASKED)
        await body(first)


def coordinator(broker: MemoryBroker, name: str) -> Coordinator:
    return Coordinator(CONFIG, transport=broker.transport(process=name), clock=VirtualClock())


def told(broker: MemoryBroker) -> int:
    """Queries that stand in `telemetry`."""
    records = broker.records(Topics(CONFIG.namespace).telemetry)
    batches = (decode(record.value, TelemetryBatch) for record in records)
    return sum(row.count for batch in batches for row in batch.rows.queries)


def decide(of: Coordinator) -> Decision:
    descriptors = tuple(LayerDescriptor(name, "default") for name in ("slow", "quick"))
    context = PlanContext("q", "t", ("slow", "quick"), (), descriptors, {"default": GroupLoad(2)})
    return of.brain.selector.decide(context)


def test_one_that_comes_later_decides_like_its_peers() -> None:
    async def body() -> None:
        broker = MemoryBroker()

        async def compare(first: Coordinator) -> None:
            async with coordinator(broker, "c2") as second:
                first.brain.selector.telemetry.settle()
                slow_ms = second.brain.profiler.latency_ms("slow")
                assert slow_ms > 20 * second.brain.profiler.latency_ms("quick")
                assert slow_ms == first.brain.profiler.latency_ms("slow")
                mine, theirs = decide(second), decide(first)
                assert (mine.strategy, mine.order) == (theirs.strategy, theirs.order)
                assert mine.estimates == theirs.estimates
                assert second.brain.graph.knows_type("t")

        await with_history(broker, compare)

    run(body())


def test_one_that_was_there_learns_along() -> None:
    async def body() -> None:
        broker = MemoryBroker()
        await ensure_topics(broker.transport(), CONFIG, ["default"])
        async with coordinator(broker, "c0") as beside:

            async def compare(_: Coordinator) -> None:
                await until(lambda: beside.brain.graph.knows_type("t"))
                assert beside.brain.profiler.latency_ms("slow") > 100

            await with_history(broker, compare)

    run(body())
