"""A backlog is worked off in turns and within bounds, and nothing is lost where it is cut."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from unittest.mock import patch

from hybrid import Hybrid
from msgspec import structs
from records import FakeRecord

from anabranch.config.settings import Config, CoordinatorConfig, TopicsConfig
from anabranch.contract.codec import decode, encode
from anabranch.contract.events import Answer, Item, LayerDescriptor, Query
from anabranch.coordinator import Coordinator
from anabranch.coordinator.delivery.publisher import Publisher
from anabranch.coordinator.progress.metadata import decode as decode_progress
from anabranch.coordinator.query.admission import Admission
from anabranch.coordinator.query.claim import Claim
from anabranch.coordinator.query.partition import QueryPartition
from anabranch.coordinator.query.planning import Planner
from anabranch.dispatch.routing import Outstanding
from anabranch.errors import StageFailed
from anabranch.kafka.topics import Topics, ensure_topics
from anabranch.kafka.transport import Record
from anabranch.layers.api import LayerSpec, Request, layer
from anabranch.runtime.supervisor import until
from anabranch.testing.memory import MemoryBroker
from anabranch.testing.virtual_time import VirtualClock, run
from anabranch.worker import Worker

CONFIG = Config(topics=TopicsConfig(queries=2, tasks=2))
TOPICS = Topics(CONFIG.namespace)


async def asked(broker: MemoryBroker, count: int, **fields: object) -> None:
    """So many queries wait, spread over two partitions."""
    await ensure_topics(broker.transport(), CONFIG, ["io"])
    producer = broker.transport(process="producer").producer("producer")
    await producer.start()
    for n in range(count):
        query = Query(id=f"q{n}", type="t", layers=["a"], **fields)  # type: ignore[arg-type]
        await producer.send(TOPICS.queries, encode(query), partition=n % 2)
    describe = encode(LayerDescriptor("a", "io"))
    await producer.send(TOPICS.health, describe, key=b"layer/io/a", partition=0)


def answers(broker: MemoryBroker) -> dict[str, Answer]:
    found = [decode(record.value, Answer) for record in broker.records(TOPICS.results)]
    assert len({answer.id for answer in found}) == len(found), "each once"
    return {answer.id: answer for answer in found}


def coordinator(broker: MemoryBroker, config: Config, name: str = "c") -> Coordinator:
    return Coordinator(config, transport=broker.transport(process=name), clock=VirtualClock())


def bounded(**bounds: int) -> Config:
    return structs.replace(CONFIG, coordinator=CoordinatorConfig(**bounds))


def most_open(config: Config, count: int, **fields: object) -> int:
    """The most queries that were open at a time while all were answered."""
    most = 0
    on_query = QueryPartition.on_query

    def watch(self: QueryPartition, record: Record, now_ms: float) -> None:
        nonlocal most
        on_query(self, record, now_ms)
        most = max(most, len(self._admission._sizes))

    async def body() -> None:
        broker = MemoryBroker()
        await asked(broker, count, **fields)
        async with coordinator(broker, config):
            await until(lambda: len(answers(broker)) == count, every_s=0.5)

    with patch.object(QueryPartition, "on_query", watch):
        run(body())
    return most


def test_no_more_queries_are_open_than_may_be_whatever_was_fetched() -> None:
    assert most_open(bounded(max_open_queries=7), 60) == 7


def test_nor_more_bytes() -> None:
    size = len(encode(Query(id="q0", type="t", layers=["a"], params={"x": "y" * 5_000})))
    config = bounded(max_open_bytes=4 * size)
    assert most_open(config, 40, params={"x": "y" * 5_000}) in (4, 5)


def test_a_query_larger_than_the_bound_is_read_alone() -> None:
    assert most_open(bounded(max_open_bytes=10), 5) == 1


def test_what_arrives_counts_until_the_answer_is_acknowledged() -> None:
    bounds = CoordinatorConfig(max_open_queries=9, max_open_bytes=1_000)
    load = Admission(bounds, Outstanding(), lambda: 0)
    p, q = Claim(0, 1), Claim(0, 2)
    load.grow(p, 0, 400)
    load.grow(q, 0, 400)
    assert not load.is_full
    load.grow(p, 0, 300)
    assert load.is_full
    load.remove(p, 0)
    assert not load.is_full
    load.grow(q, 1, 700)
    assert load.is_full
    load.drop(q)
    assert not load.is_full
    load.remove(q, 1)  # acknowledged after it was lost
    assert not load.is_full


def test_a_backlog_is_not_piled_up_before_busy_workers_but_who_asks_now_is_sent_on() -> None:
    outstanding, slots = Outstanding(), 0
    load = Admission(CoordinatorConfig(), outstanding, lambda: slots)
    outstanding.choose("io", 1)
    for _ in range(1_000):
        assert load.has_room(age_ms=60_000)
        outstanding.sent("io", 0)
    assert not load.has_room(age_ms=60_000)
    assert load.has_room(age_ms=10)
    slots = 320  # more workers came
    assert load.has_room(age_ms=60_000)
    slots = 0
    outstanding.ended("io", 0)
    assert load.has_room(age_ms=60_000)


def test_nothing_is_planned_for_a_query_that_has_expired_when_it_is_read() -> None:
    world = Hybrid()
    world.ask("a", n=1)
    world.reply("a")
    with patch.object(Planner, "plan", side_effect=AssertionError):
        for fields in ({"n": 1}, {"n": 2}):
            id_ = late(world, **fields)
            answer = world.answers[id_]
            cached = fields["n"] == 1
            assert answer.status == ("complete" if cached else "failed")
            assert cached or (answer.error is not None and answer.error.code == "expired")


def late(world: Hybrid, n: int) -> str:
    """Ask a question whose deadline has passed when it is read."""
    world.now_ms -= 5_000
    id_, partition = f"late{n}", world.partitions[0]
    value = encode(Query(id=id_, type="t", layers=["a"], params={"n": n}))
    record = FakeRecord(value, offset=partition.progress.position, timestamp=int(world.now_ms))
    world.now_ms += 5_000
    partition.on_query(record, world.now_ms)
    world.collect()
    return id_


def test_partitions_that_change_hands_in_the_middle_of_a_batch_lose_nothing() -> None:
    """Others join and leave while a backlog is worked off: all is answered, each query once."""

    async def body() -> None:
        broker = MemoryBroker()
        await asked(broker, 4_000)
        config = bounded(max_open_queries=50)
        async with coordinator(broker, config, "c1"):
            await until(lambda: len(answers(broker)) > 500, every_s=0.1)
            async with coordinator(broker, config, "c2"):
                await until(lambda: len(answers(broker)) > 2_000, every_s=0.1)
            await until(lambda: len(answers(broker)) == 4_000, every_s=0.5)
            await asyncio.sleep(5)
        assert len(answers(broker)) == 4_000

    run(body())


def test_after_a_record_that_was_not_taken_no_later_one_of_its_partition_is() -> None:
    """A partition is held in the middle of a fetch, and is ours again before the fetch is done."""
    read: list[int] = []

    async def body() -> None:
        broker = MemoryBroker()
        await asked(broker, 2_000)
        owner = coordinator(broker, CONFIG)
        on_query, flush = QueryPartition.on_query, Publisher.flush

        def watch(self: QueryPartition, record: Record, now_ms: float) -> None:
            if record.partition == 0:
                read.append(record.offset)
            on_query(self, record, now_ms)

        async def between(self: Publisher) -> None:
            partition, task = owner.query.owned.get(0), asyncio.current_task()
            is_reading = task is not None and task.get_name().endswith(": queries")
            if is_reading and partition is not None and 0 < partition.progress.position < 1_000:
                partition.held = not partition.held
            await flush(self)

        with (
            patch.object(QueryPartition, "on_query", watch),
            patch.object(Publisher, "flush", between),
        ):
            async with owner:
                await until(lambda: read)
                await asyncio.sleep(5)

    run(body())
    assert len(read) >= 100
    assert read == list(range(len(read)))


async def hang(request: Request) -> list[Item]:
    await asyncio.sleep(3_600)
    return []


async def find(request: Request) -> list[Item]:
    return [Item("urn:1", 1.0)]


def test_those_who_ask_a_layer_that_hangs_do_not_stop_the_others_behind_them() -> None:
    async def body() -> None:
        broker, clock = MemoryBroker(), VirtualClock()
        await ensure_topics(broker.transport(), CONFIG, ["io", "cpu"])
        producer = broker.transport(process="producer").producer("producer")
        await producer.start()
        for name in ("a",) * 1_100 + ("b",) * 30:
            query = Query(
                id=f"{name}{len(broker.records(TOPICS.queries))}", type="t", layers=[name]
            )
            query = structs.replace(query, params={"n": query.id}, timeout_ms=40_000)
            await producer.send_and_wait(TOPICS.queries, encode(query), partition=0)
        await asyncio.sleep(2)
        slow, quick = (
            LayerSpec(layer("a")(hang), group="io"),
            LayerSpec(layer("b")(find), group="cpu"),
        )
        async with (
            Worker(CONFIG, "io", [slow], transport=broker.transport(process="w"), clock=clock),
            Worker(CONFIG, "cpu", [quick], transport=broker.transport(process="v"), clock=clock),
            coordinator(broker, CONFIG),
        ):
            await until(lambda: len(answers(broker)) >= 30, every_s=0.5)
            found = answers(broker)
            assert {id_[0] for id_ in found} == {"b"}
            assert {answer.status for answer in found.values()} == {"complete"}

    run(body())


def takeovers_after(owners: int, end: Callable[[MemoryBroker, str], Awaitable[None]]) -> set[int]:
    """What is committed after owners that had twenty queries open, answered none, and ended."""

    async def body() -> set[int]:
        broker = MemoryBroker()
        await asked(broker, 20, timeout_ms=60_000)
        spec = LayerSpec(layer("a")(hang), group="io")
        transport, clock = broker.transport(process="w"), VirtualClock()
        async with Worker(CONFIG, "io", [spec], transport=transport, clock=clock):
            for n in range(owners):
                with suppress(StageFailed, asyncio.CancelledError):
                    async with coordinator(broker, CONFIG, f"c{n}") as owner:
                        await until(lambda: owner.query.owned.open_count == 20)
                        await end(broker, f"c{n}")
        assert not answers(broker)
        commits = broker.group(f"{CONFIG.namespace}coordinators").committed.values()
        return {decode_progress(*commit).takeovers for commit in commits}

    return run(body())


def test_lost_membership_is_no_evidence_against_what_was_open() -> None:
    async def cut(broker: MemoryBroker, name: str) -> None:
        broker.cut(name, 8)
        await asyncio.sleep(30)

    assert takeovers_after(3, cut) == {1}, "the first counts: nobody said what was before"


def test_a_death_is_evidence() -> None:
    async def kill(broker: MemoryBroker, name: str) -> None:
        broker.kill(name)
        await asyncio.sleep(30)

    assert takeovers_after(3, kill) == {3}
