"""Every setting has an effect: each is set otherwise, and what it is for comes out otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import msgspec
import pytest
from hybrid import Hybrid, named
from msgspec.structs import replace

from anabranch.client import Client
from anabranch.config.settings import Config, LayerConfig, TypeConfig, load
from anabranch.contract.codec import encode
from anabranch.coordinator import Coordinator
from anabranch.errors import LayerError
from anabranch.kafka.client import KafkaTransport
from anabranch.kafka.client import consumer as kafka_consumer
from anabranch.kafka.topics import ensure_topics, topic_specs
from anabranch.layers.api import LayerSpec, Request, Result, describe
from anabranch.layers.loading import load_layers
from anabranch.runtime.supervisor import until
from anabranch.testing.layer_contract import ask_for
from anabranch.testing.memory import MemoryBroker
from anabranch.testing.memory.broker import MemoryAdmin
from anabranch.testing.virtual_time import VirtualClock, run
from anabranch.worker import Worker
from anabranch.worker.wrappers import guard

BASE: dict[str, Any] = {
    "topics": {"queries": 2, "tasks": 2},
    "types": {"t": {"layers": ["a", "b"]}},
    "layers": {"a": {"plugin": "synthetic", "latency_ms": 20.0}},
}
Probe = Callable[[Config], Any]


class Row(NamedTuple):
    """A setting, another value than its default, and what is to come out otherwise."""

    value: Any
    probe: Probe


def configured(key: str = "", value: Any = None) -> Config:
    """As it would be read: the key in its table, beside what all need."""
    tree = msgspec.json.decode(encode(BASE))
    if key:
        *path, last = key.replace("types.<name>", "types.t").replace("<name>", "a").split(".")
        table = tree
        for part in path:
            table = table.setdefault(part, {})
        table[last] = value
    return load(None, environ={}, overrides=tree)


# ── one query, without I/O ─────────────────────────────────────────────────────────────────


def scene(config: Config, **select: Any) -> Hybrid:
    chosen = replace(config.select, **select)
    return Hybrid(coordinator=config.coordinator, select=chosen, types=dict(config.types))


def deadline(config: Config, **fields: Any) -> float:
    world = scene(config)
    world.ask("a", **fields)
    return world.sent[0].task.deadline_ms - world.now_ms


def repeats(config: Config, after_ms: float, others: int) -> int:
    """How often an id is dropped that comes again after so long, and so many others."""
    world = scene(config)
    world.ask("a", id="x")
    for n in range(others):
        world.ask("a", id=f"other {n}")
    world.after(after_ms)
    world.reply("a")
    world.answers.clear()
    world.ask("a", id="x")
    return world.parts.counters.duplicates


def cached(config: Config) -> int:
    world = scene(config)
    for n in range(3):
        world.cached("a", n=n)
    return len(world.parts.cache)


def rejected(config: Config) -> int:
    world = scene(config)
    world.ask("a", reply_to="replies")
    return world.parts.counters.rejected


def ruled(config: Config, *layers: str, **fields: Any) -> str:
    """The strategy that the rules take."""
    world = scene(config, mode="rules")
    world.cached("a", "b", "c")
    id_ = world.ask(*layers, timeout_ms=10_000, **fields)
    for layer in world.asked():
        world.reply(layer)
    return str(world.answers[id_].strategy)


def reason(config: Config) -> str:
    world = scene(config)
    id_ = world.ask("a", "d", "e")
    world.reply("a", "d", "e")
    return world.answers[id_].reason


def answered(config: Config, **fields: Any) -> Any:
    """What comes of the type's own layers, the second of which is surer of what it found."""
    world = scene(config)
    world.learn("b", asked=500, used=0, type_="t")
    id_ = world.ask(type="t", **fields)
    for layer in world.asked():
        world.reply(layer, items=named([f"urn:{layer}", "urn:both"]))
    answer = world.answers[id_]
    return [(item.id, item.score) for item in answer.items], world.statuses(id_)


def asked_twice(config: Config) -> list[str]:
    world = scene(config)
    world.cached("a", params={"n": 1, "noise": 1})
    world.ask("a", params={"n": 1, "noise": 2})
    return world.asked()


def full(config: Config) -> bool:
    world = scene(config)
    for n in range(2):
        world.ask("a", n=n)
    return world.parts.admission.is_full


# ── a pipeline in virtual time ─────────────────────────────────────────────────────────────


class Slow:
    """A layer that takes a second and notes what it was given."""

    name = "a"

    def __init__(self) -> None:
        self.running = self.most = 0
        self.remaining_ms: list[float] = []

    async def ask(self, request: Request) -> Result:
        self.remaining_ms.append(request.remaining_ms)
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(request.params["takes_s"])
        self.running -= 1
        return Result(named(["urn:x"]))


@asynccontextmanager
async def pipeline(config: Config, layer: Slow) -> AsyncIterator[tuple[MemoryBroker, Client]]:
    broker, clock = MemoryBroker(), VirtualClock()
    await ensure_topics(broker.transport(), config, ["default"])
    worker = Worker(config, layers=[LayerSpec(layer)], transport=broker.transport("w"), clock=clock)
    coordinator = Coordinator(config, transport=broker.transport("c"), clock=clock)
    async with worker, coordinator, Client(config, transport=broker.transport("k")) as client:
        await worker.ready()
        await until(lambda: coordinator.query.registry.descriptor("a"))
        yield broker, client


def closing_s(config: Config) -> float:
    """Seconds until all is closed while a layer hangs."""

    async def body() -> float:
        loop = asyncio.get_running_loop()
        async with pipeline(config, Slow()) as (_, client):
            task = asyncio.create_task(
                client.ask("t", {"takes_s": 1e6}, layers=["a"], timeout_ms=60_000)
            )
            await asyncio.sleep(2)
            task.cancel()
            began = loop.time()
        return round(loop.time() - began, 1)

    return run(body())


def committed_s(config: Config, group: str) -> float:
    """Seconds from an answer to the commit that says so."""

    async def body() -> float:
        loop = asyncio.get_running_loop()
        async with pipeline(config, Slow()) as (broker, client):
            name = f"{config.namespace}{group}"

            def offsets() -> int:
                return sum(commit.offset for commit in broker.committed(name).values())

            await asyncio.sleep(5)
            began, before = loop.time(), offsets()
            await client.ask("t", {"takes_s": 0}, layers=["a"])
            await until(lambda: offsets() != before)
            return round(loop.time() - began)

    return run(body())


def worked(config: Config) -> tuple[int, float]:
    """How many layers ran at once, and the least time that one was given."""

    async def body() -> tuple[int, float]:
        layer = Slow()
        async with pipeline(config, layer) as (_, client):
            asks = [
                client.ask("t", {"takes_s": 1, "n": n}, layers=["a"], timeout_ms=30_000)
                for n in range(6)
            ]
            await asyncio.gather(*asks)
        return layer.most, round(max(layer.remaining_ms), -1)

    return run(body())


# ── single parts ───────────────────────────────────────────────────────────────────────────


def part_of_worker(config: Config, look: Callable[[Worker], Any]) -> Any:
    async def body() -> Any:
        return look(
            Worker(config, layers=[LayerSpec(Slow())], transport=MemoryBroker().transport())
        )

    return run(body())


def delivery(config: Config) -> str:
    async def body() -> str:
        coordinator = Coordinator(config, transport=MemoryBroker().transport())
        return type(coordinator.parts.delivery).__name__

    return run(body())


def first_taken(worker: Worker) -> Any:
    """Of a LOW task and a younger, higher one."""
    queue: Any = worker._queue
    queue.put("low", "low", 0.0)
    queue.put("high", "high", 50.0)
    return queue.take(100.0)[0]


def layer_of(config: Config) -> LayerSpec:
    (spec,) = load_layers(config, config.layers["a"].group)
    return spec


def guarded(config: Config) -> str:
    """How the layer's answer ends under what guards it."""

    async def body() -> str:
        with ThreadPoolExecutor() as threads:
            ask = guard(layer_of(config), threads)  # type: ignore[arg-type]
            request = ask_for({"text": "why"})
            request = replace(request, deadline=asyncio.get_running_loop().time() + 60)
            try:
                return f"{len((await ask(request)).items)} items"
            except LayerError as error:
                return str(error)

    return run(body())


class StopError(Exception):
    """Enough is known."""


def kafka_client(config: Config) -> dict[str, Any]:
    """What a consumer is made with."""
    made: dict[str, Any] = {}

    def note(kind: type, **settings: Any) -> None:
        made.update(settings)
        raise StopError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kafka_consumer, "made", note)
        listener: Any = None
        consumer = KafkaTransport(config.kafka).consumer("n", "g", ["t"], listener)
        with pytest.raises(StopError):
            asyncio.run(consumer.start())
    del made["partition_assignment_strategy"]
    return made


def replicas(config: Config) -> int:
    """Copies that are asked for of topics that are made."""
    asked: list[int] = []

    async def create(self: MemoryAdmin, topics: Any, replication: int) -> None:
        asked.append(replication)
        for name, state in topics.items():
            self._cluster.create(name, state.partitions, state.settings)

    async def body() -> None:
        await ensure_topics(MemoryBroker().transport(), config, [])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryAdmin, "create", create)
        run(body())
    return asked[0]


def specs(config: Config) -> Any:
    return {name: (s.partitions, s.settings) for name, s in topic_specs(config, ["g"]).items()}


SETTINGS: dict[str, Row] = {
    "namespace": Row("other.", lambda c: sorted(specs(c))),
    "instance": Row("me", lambda c: part_of_worker(c, lambda w: w.instance.startswith("worker"))),
    "mode": Row("exactly_once", delivery),
    "kafka.bootstrap": Row("there:1", kafka_client),
    "kafka.client": Row({"metadata_max_age_ms": 7}, kafka_client),
    "kafka.session_timeout_ms": Row(9_000, kafka_client),
    "kafka.heartbeat_interval_ms": Row(100, kafka_client),
    "kafka.rebalance_timeout_ms": Row(20_000, kafka_client),
    "kafka.request_timeout_ms": Row(9_000, kafka_client),
    "kafka.fetch_max_wait_ms": Row(7, kafka_client),
    "kafka.replication": Row(2, replicas),
    "topics.queries": Row(3, specs),
    "topics.tasks": Row(3, specs),
    "topics.retention_ms": Row(7_000_000, specs),
    "topics.dlq_retention_ms": Row(7_000, specs),
    "coordinator.commit_interval_ms": Row(4_000, lambda c: committed_s(c, "coordinators")),
    "coordinator.max_open_queries": Row(2, full),
    "coordinator.max_open_bytes": Row(150, full),
    "coordinator.max_timeout_ms": Row(500, lambda c: deadline(c, timeout_ms=800)),
    "coordinator.dedupe_window_ms": Row(1, lambda c: repeats(c, 10, 0)),
    "coordinator.dedupe_max_ids": Row(2, lambda c: repeats(c, 10, 5)),
    "coordinator.drain_timeout_ms": Row(30_000, closing_s),
    "coordinator.reply_topics": Row(["rep*"], rejected),
    "coordinator.cache_max_entries": Row(1, cached),
    "coordinator.cache_max_bytes": Row(1, cached),
    "coordinator.warm": Row(True, lambda c: scene(c).parts.speculation.stats()),
    "coordinator.prefetch": Row(True, lambda c: scene(c).parts.speculation.stats()),
    "worker.slots": Row(2, worked),
    "worker.queue": Row(4, lambda c: part_of_worker(c, lambda w: w._throttle.update(3))),
    "worker.commit_interval_ms": Row(4_000, lambda c: committed_s(c, "workers.default")),
    "worker.drain_timeout_ms": Row(20_000, closing_s),
    "worker.reserve_ms": Row(500, worked),
    "worker.max_low_wait_ms": Row(80, lambda c: part_of_worker(c, first_taken)),
    "select.mode": Row("rules", reason),
    "select.cache_threshold": Row(0.5, lambda c: ruled(c, "a", "b", "d", min_coverage=0.5)),
    "select.parallel_threshold": Row(4.0, lambda c: ruled(c, "d", "e")),
    "select.parallel_max_layers": Row(1, lambda c: ruled(c, "d", "e")),
    "select.distributed_threshold": Row(100.0, lambda c: ruled(c, "d")),
    "types.<name>.layers": Row(["a", "c"], answered),
    "types.<name>.key_params": Row(["n"], asked_twice),
    "types.<name>.timeout_ms": Row(77, lambda c: deadline(c, timeout_ms=None)),
    "types.<name>.fusion": Row("score", answered),
    "types.<name>.weights": Row({"b": 3.0}, answered),
    "types.<name>.select": Row("learned", answered),
    "layers.<name>.plugin": Row(f"{__name__}:Other", lambda c: type(layer_of(c).layer).__name__),
    "layers.<name>.group": Row("io", lambda c: describe(layer_of(c))),
    "layers.<name>.shards": Row(3, lambda c: describe(layer_of(c))),
    "layers.<name>.ttl_ms": Row(7, lambda c: describe(layer_of(c))),
    "layers.<name>.weight": Row(7.0, lambda c: describe(layer_of(c))),
    "layers.<name>.timeout_ms": Row(5, guarded),
    "layers.<name>.max_bytes": Row(10, guarded),
}
"""What becomes of a layer's description is the coordinator's: shards in `test_hybrid_execution`,
TTL in `test_cache_fold`, weight in `test_answering`; session and rebalance timeouts are Kafka's."""


class Other(Slow):
    """Another plugin."""

    class Config(msgspec.Struct):
        latency_ms: float = 0.0

    def __init__(self, name: str, config: Config) -> None:
        super().__init__()


def keys(kind: Any, prefix: str = "") -> Iterator[str]:
    """Every key of the configuration."""
    tables = {"types": TypeConfig, "layers": LayerConfig}
    for field in msgspec.structs.fields(kind):
        if isinstance(field.default, msgspec.Struct):
            yield from keys(type(field.default), f"{prefix}{field.name}.")
        elif field.name in tables and not prefix:
            yield from keys(tables[field.name], f"{field.name}.<name>.")
        elif f"{prefix}{field.name}" not in ("source", "layers.<name>.settings"):
            yield f"{prefix}{field.name}"


def test_every_setting_is_tried() -> None:
    assert sorted(SETTINGS) == sorted(keys(Config))


@pytest.mark.parametrize("key", SETTINGS)
def test_a_setting_has_an_effect(key: str) -> None:
    value, probe = SETTINGS[key]
    assert probe(configured()) != probe(configured(key, value))
    assert probe(configured()) == probe(configured()), "it comes out otherwise by itself"
