"""The broker's clock is set, forwards or back, while work is under way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest
from records import FakeRecord

from anabranch.admin.cluster_view import ClusterView
from anabranch.cache.cross_layer_cache import CrossLayerCache
from anabranch.cache.slots import Slot
from anabranch.client import Client
from anabranch.config.settings import Config, CoordinatorConfig, TopicsConfig, TypeConfig
from anabranch.contract.codec import encode
from anabranch.contract.events import Item, MemberHealth
from anabranch.contract.rows import LayerSum, Rows
from anabranch.contract.telemetry import TelemetryBatch
from anabranch.coordinator import Coordinator
from anabranch.coordinator.background.worker_crashes import CrashTracker
from anabranch.coordinator.progress.dedupe_window import DedupeWindow
from anabranch.dispatch.layer_registry import LayerRegistry
from anabranch.kafka.topics import Topics, ensure_topics
from anabranch.layers.api import LayerSpec, Request, layer
from anabranch.learn.execution_telemetry import ExecutionTelemetryCollector
from anabranch.learn.profiler import LayerProfiler
from anabranch.testing import MemoryBroker, VirtualClock, run
from anabranch.worker import Worker

HOUR_MS = 3_600_000.0
CONFIG = Config(
    types={"t": TypeConfig(layers=["quick", "hung"]), "u": TypeConfig(layers=["quick"])},
    topics=TopicsConfig(queries=2, tasks=2),
)


@layer("quick")
async def quick(request: Request) -> Sequence[Item]:
    return [Item("urn:quick", 1.0)]


@layer("hung")
async def hung(request: Request) -> Sequence[Item]:
    await asyncio.sleep(100_000)
    return []


Body = Callable[[MemoryBroker, VirtualClock, Coordinator, Client], Awaitable[None]]


async def pipeline(body: Body) -> None:
    clock = VirtualClock()
    broker = MemoryBroker(clock=clock)
    await ensure_topics(broker.transport(), CONFIG, ["default"])
    layers = [LayerSpec(quick), LayerSpec(hung)]
    async with (
        Worker(
            CONFIG, layers=layers, transport=broker.transport(process="w"), clock=VirtualClock()
        ) as worker,
        Coordinator(
            CONFIG, transport=broker.transport(process="c"), clock=VirtualClock()
        ) as coordinator,
        Client(CONFIG, transport=broker.transport(process="client")) as client,
    ):
        await worker.ready()
        await coordinator.ready()
        await asyncio.sleep(2.0)
        await body(broker, clock, coordinator, client)


@pytest.mark.parametrize("by_ms", [-HOUR_MS, HOUR_MS, -20_000.0, 20_000.0])
def test_a_query_that_is_open_meanwhile_is_answered_about_when_it_was_due(by_ms: float) -> None:
    async def body(
        broker: MemoryBroker, clock: VirtualClock, coordinator: Coordinator, client: Client
    ) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        asked = asyncio.ensure_future(client.ask("t", {"n": 1}, timeout_ms=5_000))
        await asyncio.sleep(1.0)
        clock.jump(by_ms)
        answer = await asked
        assert answer.status == "partial"
        assert 2.0 < loop.time() - begun < 6.0
        assert (await client.ask("u", {"n": 2}, timeout_ms=1_000)).status == "complete"

    run(pipeline(body))


@pytest.mark.parametrize("by_ms", [-HOUR_MS, HOUR_MS])
def test_telemetry_and_reports_go_on(by_ms: float) -> None:
    async def body(
        broker: MemoryBroker, clock: VirtualClock, coordinator: Coordinator, client: Client
    ) -> None:
        topics = Topics(CONFIG.namespace)
        clock.jump(by_ms)
        await asyncio.sleep(3.0)

        def told() -> tuple[int, int]:
            stats = [r for r in broker.records(topics.health) if (r.key or b"")[:6] == b"stats/"]
            return len(broker.records(topics.telemetry)), len(stats)

        before = told()
        for n in range(5):
            await client.ask("u", {"n": n}, timeout_ms=1_000)
        await asyncio.sleep(11.0)
        batches, stats = told()
        assert batches > before[0]
        assert stats >= before[1] + 2
        live = coordinator.query.registry.members.workers("default", coordinator.query.now_ms())
        assert [member.role for member in live] == ["worker"]

    run(pipeline(body))


def batch(sequence: int, bucket: int, took_ln: int, count: int = 50) -> TelemetryBatch:
    row = LayerSum(
        bucket, "t", "parallel", "a", asked=count, ok=count, timed=count, took_ln=count * took_ln
    )
    return TelemetryBatch("other", sequence, Rows(layers=(row,)))


class TestLearning:
    now_s = 10_000

    def pupil(self) -> tuple[ExecutionTelemetryCollector, LayerProfiler]:
        profiler = LayerProfiler()
        collector = ExecutionTelemetryCollector(
            "me", (profiler,), now_ms=lambda: self.now_s * 1_000.0
        )
        return collector, profiler

    def test_what_is_stamped_ahead_of_time_is_not_learned_live_or_from_the_past(self) -> None:
        collector, profiler = self.pupil()
        collector.fold(batch(1, self.now_s, 10_000))
        before = profiler.latency_ms("a")
        for n in range(40):
            collector.fold(batch(2 + n, self.now_s + 60 + n, 1_000))
            collector.replay([batch(100 + n, self.now_s + 3_600 + n, 1_000)])
        assert profiler.latency_ms("a") == before

    def test_a_little_ahead_is_believed(self) -> None:
        collector, profiler = self.pupil()
        collector.fold(batch(1, self.now_s + 5, 10_000))
        assert profiler.samples("a") == 50

    def test_learning_goes_on_when_the_clock_was_set_back(self) -> None:
        collector, profiler = self.pupil()
        for n in range(40):
            collector.fold(batch(n, self.now_s - 40 + n, 10_000))
        self.now_s -= 3_600
        collector.take_batch()
        assert profiler.samples("a") == 0
        for n in range(40):
            self.now_s += 1
            collector.fold(batch(100 + n, self.now_s, 5_000))
        assert profiler.latency_ms("a") == pytest.approx(0.148, rel=0.01)


class TestWhatWaits:
    def test_ids_are_remembered_for_time_that_has_passed(self) -> None:
        ids = DedupeWindow(CoordinatorConfig(dedupe_window_ms=60_000), ())
        assert not ids.is_repeat("q", 1, 1_000_000.0)
        ids.shift(HOUR_MS)
        assert ids.is_repeat("q", 2, 1_000_000.0 + HOUR_MS + 59_000)
        assert not ids.is_repeat("q", 3, 1_000_000.0 + HOUR_MS + 61_000)

    def test_so_are_deaths(self) -> None:
        crashes, key = CrashTracker(apart_ms=3_000), ("t", "", ())
        now_ms = 1_000_000.0
        for _ in range(3):
            now_ms += 5_000
            crashes.died("w", {key: {"a"}}, now_ms)
        crashes.shift(-HOUR_MS, now_ms - HOUR_MS)
        assert crashes.is_quarantined(key, now_ms - HOUR_MS)
        assert not crashes.is_quarantined(key, now_ms - HOUR_MS + 601_000)

    @pytest.mark.parametrize("by_ms", [-HOUR_MS, HOUR_MS])
    def test_nobody_dies_of_it_and_who_dies_is_missed(self, by_ms: float) -> None:
        steady_ms, now_ms = 0.0, 1_000_000.0
        directory = LayerRegistry(lambda: steady_ms)
        member = encode(MemberHealth("w", "worker", "ready", "io"))
        record = FakeRecord(member, key=b"member/worker/w", timestamp=int(now_ms))
        directory.learn(record, now_ms)
        assert not directory.members.deaths()
        assert directory.members.workers("io", now_ms + by_ms)
        steady_ms = 3_500.0
        assert not directory.members.workers("io", now_ms + by_ms)
        for _ in range(4):
            directory.members.beat()
        assert [dead.instance for dead, _ in directory.members.deaths()] == ["w"]

    def test_a_view_sees_who_is_there_after_the_clock_was_set_back(self) -> None:
        view = ClusterView()
        for name, at_ms in (("gone", HOUR_MS), ("here", 5.0), ("silent", 1_005.0)):
            member = encode(MemberHealth(name, "coordinator", "ready"))
            key = f"member/coordinator/{name}".encode()
            view.learn(FakeRecord(member, key=key, timestamp=int(at_ms)), alive=name == "here")
        assert [member.instance for member in view.live("coordinator")] == ["here"]
        assert view.silent("coordinator") == ["silent"]


class TestCache:
    def slot(self, stored_ms: float) -> Slot:
        return Slot([Item("urn:a", 1.0)], True, 20, stored_ms, 60_000, 0, size_bytes=10)

    def test_what_is_stamped_ahead_of_time_is_not_kept(self) -> None:
        cache, key = CrossLayerCache(), ("t", "", ())
        assert not cache.store(key, "a", self.slot(HOUR_MS), 0.0)
        assert cache.store(key, "a", self.slot(5_000.0), 0.0)

    def test_nor_what_was_there_when_the_clock_was_set_back(self) -> None:
        cache, key = CrossLayerCache(), ("t", "", ())
        cache.store(key, "a", self.slot(HOUR_MS), HOUR_MS)
        cache.forget_after(0.0)
        assert cache.store(key, "a", self.slot(0.0), 0.0)
        found = cache.probe(key, ("a",), limit=20, max_age_ms=None, now_ms=1.0)
        assert found.hits["a"].stored_ms == 0.0
