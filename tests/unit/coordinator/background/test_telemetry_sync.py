"""What one coordinator learned, all others learn, and so does one that comes later."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

from records import FakeRecord

from anabranch.client import Client
from anabranch.config.settings import Config, TopicsConfig, TypeConfig
from anabranch.contract.codec import decode
from anabranch.contract.events import Item, LayerDescriptor
from anabranch.contract.plan import Decision, GroupLoad, PlanContext
from anabranch.contract.telemetry import TelemetryBatch
from anabranch.coordinator import Coordinator
from anabranch.coordinator.background.telemetry_sync import TelemetrySync
from anabranch.coordinator.wiring import QueryParts
from anabranch.kafka.topics import Topics, ensure_topics
from anabranch.kafka.transport import Record, TopicPartition
from anabranch.layers.api import LayerSpec, Request, layer
from anabranch.runtime.supervisor import Stage, until
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
        await until(lambda: first.query.registry.descriptor("quick"))
        await until(lambda: first.parts.rebalance.resumed.is_set())
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
    return of.query.selector.decide(context)


def test_one_that_comes_later_decides_like_its_peers() -> None:
    async def body() -> None:
        broker = MemoryBroker()

        async def compare(first: Coordinator) -> None:
            async with coordinator(broker, "c2") as second:
                await second.ready()
                first.query.selector.telemetry.settle()
                slow_ms = second.query.profiler.latency_ms("slow")
                assert slow_ms > 20 * second.query.profiler.latency_ms("quick")
                assert slow_ms == first.query.profiler.latency_ms("slow")
                mine, theirs = decide(second), decide(first)
                assert (mine.strategy, mine.order) == (theirs.strategy, theirs.order)
                assert mine.estimates == theirs.estimates
                assert second.query.graph.knows_type("t")

        await with_history(broker, compare)

    run(body())


def test_one_that_was_there_learns_along() -> None:
    async def body() -> None:
        broker = MemoryBroker()
        await ensure_topics(broker.transport(), CONFIG, ["default"])
        async with coordinator(broker, "c0") as beside:

            async def compare(_: Coordinator) -> None:
                await until(lambda: beside.query.graph.knows_type("t"))
                assert beside.query.profiler.latency_ms("slow") > 100

            await with_history(broker, compare)

    run(body())


class EndlessPast:
    """A reader of a topic that is longer than anybody can read in a start."""

    def __init__(self) -> None:
        self.fetched = 0

    async def start(self) -> None: ...

    async def partitions(self, topic: str) -> int:
        return 1

    async def beginnings(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 0)

    async def ends(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 10**9)

    def assign(self, starts: dict[TopicPartition, int]) -> None: ...

    def position(self, tp: TopicPartition) -> int:
        return self.fetched

    async def fetch(self, timeout_ms: int) -> dict[TopicPartition, list[FakeRecord]]:
        await asyncio.sleep(0.1)
        self.fetched += 1_000
        records = [FakeRecord(b"{" * 5_000, offset=10**9 - 1) for _ in range(1_000)]
        return {TopicPartition(Topics(CONFIG.namespace).telemetry, 0): records}


def test_a_long_past_of_junk_keeps_nobody_from_starting_nor_from_working() -> None:
    async def body() -> None:
        reader = EndlessPast()
        producer = MemoryBroker().transport().producer("p")
        parts = QueryParts(CONFIG, lambda: 0.0)
        exchange = TelemetrySync(
            parts.selector.telemetry,
            parts.topics.telemetry,
            producer,
            reader,  # type: ignore[arg-type]
            parts.outbox,
            parts.counters,
        )
        await exchange.start()
        loop = asyncio.get_running_loop()
        replayed, between = 0, set()

        def replay(record: Record) -> None:
            nonlocal replayed
            replayed += 1

        exchange._replay = replay  # type: ignore[method-assign]
        announced, learned = asyncio.Event(), asyncio.Event()
        announced.set()
        running = loop.create_task(exchange.run(announced, learned, Stage("telemetry", loop)))
        await asyncio.sleep(0.1)  # the first thousand are there
        for _ in range(10):
            between.add(replayed)
            await asyncio.sleep(0)
        await learned.wait()
        assert len(between) >= 4
        assert 0.99 < loop.time() < 1.5
        before = replayed
        await asyncio.sleep(0.5)
        assert replayed > before
        running.cancel()

    run(body())
