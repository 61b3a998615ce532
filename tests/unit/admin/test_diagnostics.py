"""Statistics through `health`, orders through `control`: from any machine, of all instances."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import msgspec
import pytest
from hybrid import Hybrid
from records import FakeRecord

from anabranch.admin.cluster_view import LATELY_MS, ClusterView
from anabranch.admin.diagnostics import Diagnostics
from anabranch.client import Client
from anabranch.config.settings import Config, TopicsConfig, TypeConfig
from anabranch.contract.codec import MAX_VALUE_BYTES, encode
from anabranch.contract.events import (
    ComponentStats,
    ControlRecord,
    Item,
    LayerDescriptor,
    MemberHealth,
)
from anabranch.contract.keys import order_key
from anabranch.coordinator import Coordinator
from anabranch.errors import TopicError
from anabranch.kafka.topics import ensure_topics
from anabranch.layers.api import LayerSpec, Request, layer
from anabranch.runtime.supervisor import until
from anabranch.testing import MemoryBroker, VirtualClock, run
from anabranch.worker import Worker

T = TypeVar("T")


# ── the view of the cluster ────────────────────────────────────────────────────────────────


def member(name: str, timestamp: int = 0, role: Any = "coordinator", **fields: Any) -> FakeRecord:
    health = MemberHealth(name, role, fields.pop("state", "ready"), **fields)
    return FakeRecord(encode(health), key=f"member/{role}/{name}".encode(), timestamp=timestamp)


def stats(name: str, position: int = 0) -> FakeRecord:
    return FakeRecord(
        encode(ComponentStats(name, control_position=position)), key=f"stats/{name}".encode()
    )


def names(members: list[MemberHealth]) -> list[str]:
    return [each.instance for each in members]


class TestCensus:
    def test_who_speaks_while_one_listens_is_alive_and_who_spoke_just_before_is_silent(
        self,
    ) -> None:
        view = ClusterView()
        for name in ("b", "a"):
            view.learn(member(name, 1_000), alive=False)
        view.learn(member("b", 2_000), alive=True)
        assert names(view.live("coordinator")) == ["b"]
        assert view.silent("coordinator") == ["a"]

    def test_who_has_long_been_gone_is_not_mentioned(self) -> None:
        view = ClusterView()
        view.learn(member("old", 1_000), alive=False)
        view.learn(member("new", 1_001 + LATELY_MS), alive=True)
        assert not view.silent("coordinator")

    def test_who_said_goodbye_is_not_missed(self) -> None:
        view = ClusterView()
        view.learn(member("stopped", state="stopped"), alive=False)
        view.learn(member("gone"), alive=False)
        view.learn(stats("gone"), alive=False)
        view.learn(FakeRecord(None, key=b"member/coordinator/gone"), alive=False)
        view.learn(FakeRecord(None, key=b"stats/gone"), alive=False)
        assert view.heard_all
        assert not view.stats

    def test_a_coordinator_is_heard_once_its_counts_are_there_too(self) -> None:
        view = ClusterView()
        view.learn(member("a"), alive=True)
        assert not view.heard_all
        view.learn(stats("a"), alive=False)
        assert view.heard_all

    def test_listening_anew_believes_nobody(self) -> None:
        view = ClusterView()
        view.learn(member("w", role="worker"), alive=True)
        view.begin()
        assert view.silent("worker") == ["w"]

    def test_what_it_does_not_know_is_passed_over(self) -> None:
        view = ClusterView()
        view.learn(FakeRecord(b'{"kind": "later"}', key=b"later/1"), alive=True)
        view.learn(FakeRecord(encode(LayerDescriptor("a", "io"))), alive=True)
        assert set(view.layers) == {"a"}


# ── what is counted ────────────────────────────────────────────────────────────────────────


class TestComponentStats:
    def test_each_component_tells_what_happened(self) -> None:
        world = Hybrid()
        world.cached("a", "d")
        world.ask("a", "d")
        found = world.parts.stats()
        assert found["cross_layer_cache"]["hit_rate"] == 0.5
        assert found["dependency_graph"]["queries"] >= 2
        assert found["strategy_selection"]["mode"] == "learned"
        effectiveness = found["execution_telemetry"]["effectiveness"]
        assert effectiveness["cache"]["queries"] == 1

    def test_it_travels_as_json_and_comes_back_the_same(self) -> None:
        world = Hybrid()
        world.cached("a", "d")
        found = world.parts.stats()
        event = ComponentStats("c", components=found)
        back = msgspec.json.decode(encode(event), type=ComponentStats)
        assert encode(back) == encode(event)

    def test_a_thousand_types_still_fit_into_a_record(self) -> None:
        world = Hybrid()
        world.reply("a", to=world.ask("a"))
        for n in range(1_000):
            world.ask("a", type=f"type {n} " + "x" * 200)
            world.reply("a")
        found = world.parts.stats()
        types = found["execution_telemetry"]["types"]
        assert 0 < len(types) <= 50
        assert len(encode(found)) < MAX_VALUE_BYTES

    def test_how_many_an_order_concerned_is_remembered_for_the_latest_only(self) -> None:
        world = Hybrid()
        world.cached("a", "d")
        for _ in range(100):
            world.invalidate(layer="a")
        latest = world.parts.cache.latest_orders
        assert len(latest) == 64
        assert max(latest) == 99

    def test_orders_with_the_same_target_have_the_same_key(self) -> None:
        first = ControlRecord("invalidate", layer="a", tags=["x", "y"])
        assert order_key(first) == order_key(ControlRecord("invalidate", "a", tags=["y", "x"]))
        assert order_key(first) != order_key(ControlRecord("invalidate", scope="a"))


# ── over a broker ──────────────────────────────────────────────────────────────────────────

CONFIG = Config(topics=TopicsConfig(queries=4, tasks=4), types={"t": TypeConfig(layers=["a", "b"])})


class Pipeline:
    """Coordinators by name, a worker, and everything else, on one memory broker."""

    def __init__(self) -> None:
        self.broker = MemoryBroker(kafka=CONFIG.kafka)
        self.coordinators: dict[str, Coordinator] = {}
        self.client = Client(CONFIG, transport=self.broker.transport("client"))

    def diagnostics(self) -> Diagnostics:
        return Diagnostics(CONFIG, transport=self.broker.transport("elsewhere"))

    async def ask(self, count: int) -> None:
        await asyncio.gather(
            *(self.client.ask("t", {"n": n}, timeout_ms=30_000) for n in range(count))
        )


async def _find(request: Request) -> list[Item]:
    return [Item(f"urn:{request.params['n']}", 1.0)]


LAYERS = [LayerSpec(layer(name)(_find)) for name in ("a", "b")]


async def _start(stack: AsyncExitStack, pipeline: Pipeline, coordinators: int) -> None:
    broker = pipeline.broker
    await ensure_topics(broker.transport("setup"), CONFIG, ["default"])
    for n in range(coordinators):
        config = msgspec.structs.replace(CONFIG, instance=f"c{n}")
        coordinator = Coordinator(config, transport=broker.transport(f"c{n}"), clock=VirtualClock())
        pipeline.coordinators[f"c{n}"] = await stack.enter_async_context(coordinator)
    worker = Worker(CONFIG, "default", LAYERS, transport=broker.transport("w"))
    await stack.enter_async_context(worker)
    await worker.ready()
    for coordinator in pipeline.coordinators.values():
        directory = coordinator.query.registry
        await until(lambda directory=directory: directory.descriptor("b"))  # type: ignore[misc]
        await until(lambda c=coordinator: c.query.owned)  # type: ignore[misc]
    await stack.enter_async_context(pipeline.client)


def over(body: Callable[[Pipeline], Awaitable[T]], coordinators: int = 2) -> T:
    """Run `body` against a pipeline in virtual time."""

    async def main() -> T:
        pipeline = Pipeline()
        async with AsyncExitStack() as stack:
            await _start(stack, pipeline, coordinators)
            return await body(pipeline)

    return run(main())


class TestDiagnostics:
    def test_all_coordinators_and_workers_are_found(self) -> None:
        async def body(pipeline: Pipeline) -> dict[str, Any]:
            await pipeline.ask(8)
            async with pipeline.diagnostics() as diagnostics:
                return await diagnostics.get_phase_7bc_diagnostics()

        found = over(body)
        assert names_of(found["coordinators"]) == ["c0", "c1"]
        assert [len(workers) for workers in found["worker_pool"].values()] == [1]
        assert set(found["dependency_graph"]) == {"c0", "c1"}
        assert not found["silent"]

    def test_caches_add_up_over_coordinators(self) -> None:
        async def body(pipeline: Pipeline) -> dict[str, Any]:
            await pipeline.ask(8)
            await pipeline.ask(8)
            await asyncio.sleep(6)
            return await pipeline.client.get_cross_layer_cache_stats()

        found = over(body)
        assert found["total"]["probes"] == 16
        assert found["total"]["hit_rate"] == 0.5
        assert found["c0"]["probes"] + found["c1"]["probes"] == 16

    @pytest.mark.parametrize(
        ("name", "key"),
        [
            ("get_dependency_graph_stats", "pairs"),
            ("get_strategy_selection_stats", "accuracy.parallel"),
            ("get_execution_telemetry_report", "effectiveness"),
        ],
    )
    def test_each_function_is_the_clients_too(self, name: str, key: str) -> None:
        async def body(pipeline: Pipeline) -> Any:
            return await getattr(pipeline.client, name)()

        found = over(body, coordinators=1)
        assert key in found["c0"]

    def test_a_client_opens_its_connections_for_them_once(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened: list[str] = []
        enter = Diagnostics.__aenter__

        async def counted(diagnostics: Diagnostics) -> Diagnostics:
            opened.append(diagnostics._control)
            return await enter(diagnostics)

        monkeypatch.setattr(Diagnostics, "__aenter__", counted)

        async def body(pipeline: Pipeline) -> list[Any]:
            client = pipeline.client
            first = await asyncio.gather(
                client.get_worker_pool_health(), client.get_worker_pool_health()
            )
            return [*first, await client.get_worker_pool_health()]

        for health in over(body, coordinators=1):
            assert [worker["state"] for worker in health["default"]] == ["ready"]
        assert len(opened) == 1

    def test_worker_health_is_by_group(self) -> None:
        async def body(pipeline: Pipeline) -> Any:
            return await pipeline.client.get_worker_pool_health()

        (worker,) = over(body, coordinators=1)["default"]
        assert worker["state"] == "ready"
        assert worker["partitions"] == [0, 1, 2, 3]

    def test_who_died_a_moment_ago_has_fallen_silent(self) -> None:
        async def body(pipeline: Pipeline) -> Any:
            pipeline.broker.cut("c1", 30)
            await asyncio.sleep(2)
            async with pipeline.diagnostics() as diagnostics:
                return await diagnostics.get_phase_7bc_diagnostics()

        found = over(body)
        assert found["silent"] == ["c1"]
        assert names_of(found["coordinators"]) == ["c0"]

    def test_who_dies_between_two_looks_is_missed_in_the_second(self) -> None:
        async def body(pipeline: Pipeline) -> Any:
            async with pipeline.diagnostics() as diagnostics:
                first = (await diagnostics.cluster_view()).silent("coordinator")
                pipeline.broker.cut("c1", 30)
                await asyncio.sleep(2)
                return first, (await diagnostics.cluster_view()).silent("coordinator")

        assert over(body) == ([], ["c1"])

    def test_where_nothing_runs_nothing_is_waited_for(self) -> None:
        async def main() -> Any:
            broker = MemoryBroker()
            await ensure_topics(broker.transport("setup"), CONFIG, ["default"])
            async with Diagnostics(CONFIG, transport=broker.transport("x")) as diagnostics:
                return await diagnostics.get_phase_7bc_diagnostics()

        found = run(main())
        assert found["coordinators"] == []
        assert found["worker_pool"] == {}

    def test_without_topics_it_says_so(self) -> None:
        async def main() -> None:
            broker = MemoryBroker(default_partitions=0)
            async with Diagnostics(CONFIG, transport=broker.transport("x")):
                pass

        with pytest.raises(TopicError, match="anabranch topics"):
            run(main())


class TestInvalidation:
    def test_a_layer_is_forgotten_and_counted_in_every_coordinator(self) -> None:
        async def body(pipeline: Pipeline) -> Any:
            await pipeline.ask(8)
            count = await pipeline.client.invalidate_cross_layer_cache_layer("a")
            again = await pipeline.client.ask("t", {"n": 1}, timeout_ms=30_000)
            return count, again, await pipeline.client.invalidate(layer="a")

        count, again, second = over(body)
        assert count == 8
        assert again.layers["a"].source != "cache"
        assert again.layers["b"].source == "cache"
        assert second.slots == 1
        assert set(second.by_instance) == {"c0", "c1"}

    def test_a_scope_and_a_tag_can_be_targets(self) -> None:
        async def body(pipeline: Pipeline) -> Any:
            await pipeline.ask(3)
            await pipeline.client.ask("t", {"n": 1}, scope="mine", timeout_ms=30_000)
            tagged = await pipeline.client.invalidate(tags=["nothing has it"])
            return tagged, await pipeline.client.invalidate(scope="mine")

        tagged, scoped = over(body)
        assert (tagged.slots, scoped.slots) == (0, 2)

    def test_who_does_not_confirm_in_time_is_named(self) -> None:
        async def body(pipeline: Pipeline) -> Any:
            await pipeline.ask(4)
            pipeline.broker.cut("c1", 30)
            return await pipeline.client.invalidate(layer="a", timeout_ms=2_000)

        done = over(body)
        assert done.silent == ["c1"]
        assert set(done.by_instance) == {"c0"}

    def test_the_order_stands_for_who_comes_later(self) -> None:
        async def body(pipeline: Pipeline) -> Any:
            await pipeline.ask(4)
            await pipeline.client.invalidate(layer="a")
            late = Coordinator(
                msgspec.structs.replace(CONFIG, instance="late"),
                transport=pipeline.broker.transport("late"),
                clock=VirtualClock(),
            )
            async with late:
                await until(lambda: late.query.invalidations.position)
                return dict(late.query.cache.latest_orders)

        assert set(over(body, coordinators=1)) == {0}


class TestReport:
    def test_a_report_that_was_withdrawn_is_gone(self) -> None:
        async def body(pipeline: Pipeline) -> Any:
            producer = pipeline.broker.transport("x").producer("x")
            await producer.start()
            topic = pipeline.coordinators["c0"].query.topics.health
            for value in (encode(ComponentStats("another")), None):
                key = b"stats/another"
                await producer.send_and_wait(topic, value, key=key, partition=0)
            await producer.stop()
            async with pipeline.diagnostics() as diagnostics:
                return (await diagnostics.cluster_view()).stats

        assert set(over(body, coordinators=1)) == {"c0"}


def names_of(members: list[dict[str, Any]]) -> list[str]:
    return [each["instance"] for each in members]
