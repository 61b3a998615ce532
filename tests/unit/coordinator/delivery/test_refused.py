"""A record that the broker refuses is that record's fate: whoever asked is told, and it goes on.

An operator lowered a topic's `max.message.bytes` under a running pipeline.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

import pytest
from records import FakeRecord

from anabranch.client import Client
from anabranch.config.settings import Config, CoordinatorConfig, TopicsConfig, TypeConfig
from anabranch.contract.codec import MAX_VALUE_BYTES, decode
from anabranch.contract.events import Answer, AnswerItem, AnswerLayer, Item, Missing, Query
from anabranch.contract.rejected import QueryRejected
from anabranch.coordinator import Coordinator
from anabranch.coordinator.query.answering import encode_bounded
from anabranch.kafka.dead_letters import dead_letter, our_headers, smaller
from anabranch.kafka.topics import Topics, ensure_topics
from anabranch.kafka.transport import Record
from anabranch.layers.api import LayerSpec, Request, layer
from anabranch.runtime.supervisor import until
from anabranch.testing.memory import MemoryBroker
from anabranch.testing.virtual_time import VirtualClock, run
from anabranch.worker import Worker

Mode = Literal["at_least_once", "exactly_once"]
TOPICS = Topics("anabranch.")
MODES = pytest.mark.parametrize("mode", ["at_least_once", "exactly_once"])


@layer("big")
async def big(request: Request) -> Sequence[Item]:
    return [Item("urn:big", 1.0, "x" * request.params.get("bytes", 1))]


class Pipeline:
    """Client, coordinator and worker on one in-memory broker."""

    def __init__(self, broker: MemoryBroker, coordinator: Coordinator, client: Client) -> None:
        self.broker = broker
        self.coordinator = coordinator
        self.client = client

    def limit(self, topic: str, bytes_: int) -> None:
        self.broker.topic(topic).settings["max.message.bytes"] = str(bytes_)

    async def ask(self, **params: Any) -> Answer:
        return await self.client.ask("t", params, timeout_ms=5_000)

    def letters(self) -> list[Record]:
        return list(self.broker.records(TOPICS.dlq))

    async def settled(self) -> None:
        """Every offset is done and committed."""
        partitions = self.coordinator.query.owned
        await until(lambda: not any(p.progress.open_count for p in partitions.values()))
        await until(
            lambda: all(
                p.written and p.written.offset == p.progress.position for p in partitions.values()
            )
        )
        assert self.coordinator._supervisor.failure is None


@asynccontextmanager
async def pipeline(mode: Mode) -> AsyncIterator[Pipeline]:
    config = Config(
        mode=mode,
        types={"t": TypeConfig(layers=["big"])},
        topics=TopicsConfig(queries=1, tasks=1),
        coordinator=CoordinatorConfig(reply_topics=["replies"]),
    )
    broker = MemoryBroker()
    await ensure_topics(broker.transport(), config, ["default"])
    broker.create("replies", 1)
    async with (
        Worker(
            config, layers=[LayerSpec(big)], transport=broker.transport("w"), clock=VirtualClock()
        ) as worker,
        Coordinator(config, transport=broker.transport("c"), clock=VirtualClock()) as coordinator,
        Client(config, transport=broker.transport("client")) as client,
    ):
        await worker.ready()
        await coordinator.ready()
        await until(lambda: coordinator.query.registry.descriptor("big"))
        yield Pipeline(broker, coordinator, client)


def through(mode: Mode, body: Callable[[Pipeline], Awaitable[None]]) -> None:
    async def all_of_it() -> None:
        async with pipeline(mode) as made:
            await body(made)
            await made.settled()

    run(all_of_it())


@MODES
def test_instead_of_an_answer_that_is_too_large_a_small_one_goes_out(mode: Mode) -> None:
    async def body(made: Pipeline) -> None:
        made.limit(TOPICS.results, 3_000)
        refused, good = await asyncio.gather(made.ask(bytes=5_000), made.ask(bytes=5))
        assert good.status == "complete"
        assert refused.status == "failed"
        assert refused.error is not None
        assert refused.error.code == "internal"
        assert "refused the answer" in refused.error.message
        assert made.coordinator.query.counters.answers_refused == 1
        (letter,) = made.letters()
        assert decode(letter.value, Answer).items[0].data == "x" * 5_000
        assert (await made.ask(bytes=6)).status == "complete"

    through(mode, body)


@MODES
def test_where_nothing_fits_the_partition_goes_on_all_the_same(mode: Mode) -> None:
    async def body(made: Pipeline) -> None:
        made.limit(TOPICS.results, 10)
        with pytest.raises(Exception, match="no answer"):
            await made.ask(bytes=5)
        await made.settled()
        made.limit(TOPICS.results, 3_000)
        assert (await made.ask(bytes=6)).status == "complete"

    through(mode, body)


@MODES
def test_a_copy_that_is_too_large_costs_the_copy(mode: Mode) -> None:
    async def body(made: Pipeline) -> None:
        made.limit("replies", 3_000)
        for id_, size in (("large", 5_000), ("small", 5)):
            query = Query(
                id=id_, type="t", params={"bytes": size}, timeout_ms=5_000, reply_to="replies"
            )
            assert (await made.client.send(query)).status == "complete"
        assert [r.key for r in made.broker.records("replies")] == [b"small"]
        (letter,) = made.letters()
        assert b"reply to replies" in our_headers(letter.headers)["anabranch-reason"]

    through(mode, body)


def test_a_task_that_is_refused_fails_its_layer_at_once() -> None:
    async def body(made: Pipeline) -> None:
        made.limit(TOPICS.tasks("default", "medium"), 2_000)
        began = asyncio.get_running_loop().time()
        refused, good = await asyncio.gather(made.ask(text="x" * 5_000), made.ask(text="x"))
        assert asyncio.get_running_loop().time() - began < 1
        assert good.status == "complete"
        assert refused.status == "failed"
        assert "refused the task" in refused.missing[0].why
        assert made.coordinator.query.outstanding.total("default") == 0

    through("at_least_once", body)


def test_a_query_whose_task_would_be_too_large_is_told_so_at_once() -> None:
    async def body(made: Pipeline) -> None:
        head = b'{"id":"q","type":"t","timeout_ms":5000,"params":{"n":[1e9'
        grows = head + b",1e9" * 200_000 + b"]}}"
        assert len(grows) < 1_000_000
        began = asyncio.get_running_loop().time()
        stream = made.client.answers()
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        await made.client._producer.send_and_wait(TOPICS.queries, grows, partition=0)
        answer = await waiting
        assert answer.error is not None
        assert answer.error.code == "invalid_query"
        assert "over 1,000,000" in answer.error.message
        assert asyncio.get_running_loop().time() - began < 1
        assert (await made.ask(bytes=6)).status == "complete"

    through("at_least_once", body)


@MODES
@pytest.mark.parametrize(("limit", "kept"), [(1_000_000, 400_000), (60_000, 20_000), (8_000, 1)])
def test_a_dead_letter_that_is_too_large_is_cut(mode: Mode, limit: int, kept: int) -> None:
    async def body(made: Pipeline) -> None:
        made.limit(TOPICS.dlq, limit)
        junk = b"{" + b"x" * 2_000_000
        await made.client._producer.send_and_wait(TOPICS.queries, junk, partition=0)
        await until(lambda: made.letters())
        (letter,) = made.letters()
        assert letter.value is not None
        assert kept <= len(letter.value) < limit
        assert our_headers(letter.headers)["anabranch-truncated-bytes"] == b"%d" % len(junk)
        assert (await made.ask(bytes=6)).status == "complete"

    through(mode, body)


def test_a_worker_cuts_its_dead_letters_too() -> None:
    async def body(made: Pipeline) -> None:
        tasks = TOPICS.tasks("default", "medium")
        for limit in (60_000, 10):
            made.limit(TOPICS.dlq, limit)
            junk = b"{" + b"x" * 2_000_000
            await made.client._producer.send_and_wait(tasks, junk, partition=0)
            assert (await made.ask(bytes=limit)).status == "complete"
        await until(lambda: made.letters())
        (letter,) = made.letters()
        assert our_headers(letter.headers)["anabranch-topic"] == tasks.encode()

    through("at_least_once", body)


@MODES
def test_a_dead_letter_that_fits_nowhere_is_counted_and_its_query_answered(mode: Mode) -> None:
    async def body(made: Pipeline) -> None:
        made.limit(TOPICS.dlq, 10)
        with pytest.raises(QueryRejected, match=r"no layers|not configured"):
            await made.client.ask("nobody knows this type", {}, timeout_ms=5_000)
        assert made.coordinator.query.counters.letters_lost == 1
        assert (await made.ask(bytes=6)).status == "complete"

    through(mode, body)


@pytest.mark.parametrize("topic", [TOPICS.telemetry, TOPICS.health])
def test_what_a_coordinator_says_of_itself_may_be_refused(topic: str) -> None:
    async def body(made: Pipeline) -> None:
        made.limit(topic, 10)
        assert (await made.ask(bytes=6)).status == "complete"
        await asyncio.sleep(2.5)
        made.limit(topic, 1_000_000)
        await asyncio.sleep(1.5)
        assert (await made.ask(bytes=7)).status == "complete"

    through("at_least_once", body)


def test_a_client_refuses_what_is_too_large_before_it_is_sent() -> None:
    async def body(made: Pipeline) -> None:
        with pytest.raises(QueryRejected, match=r"1,0\d\d,\d\d\d bytes, over 1,000,000"):
            await made.ask(text="x" * 1_000_000)
        assert not made.broker.records(TOPICS.queries)

    through("at_least_once", body)


def test_a_letter_is_cut_until_nothing_of_the_record_is_left() -> None:
    record = FakeRecord(
        b"v" * 4_000_000,
        key=b"k" * 900_000,
        headers=[(f"h{n}", b"h" * 10_000) for n in range(99)],
    )
    letter = dead_letter("c", "é" * 4_000, record)
    sizes = []
    while letter is not None:
        sizes.append(sum(len(name) + len(value) for name, value in letter.headers))
        last, letter = letter, smaller(letter)
    assert len(sizes) == 4
    assert len(last.value or b"") + len(last.key or b"") + sizes[-1] <= 6_000
    assert our_headers(last.headers)["anabranch-truncated-bytes"].isdigit()
    assert smaller(dead_letter("c", "why", FakeRecord(b"{"))) is None


def test_an_answer_of_the_longest_names_and_errors_fits() -> None:
    names = ["\x01" * 120 + f"{n:08d}" for n in range(256)]
    error = "\x01" * 16_384
    answer = Answer(
        "\x01" * 256,
        "failed",
        reason="\x01" * 1_000,
        items=[AnswerItem((names[0],), "\x01" * 16_384, 1.0) for _ in range(20)],
        layers={name: AnswerLayer(status="error", error=error) for name in names},
        missing=[Missing(name, error) for name in names],
    )
    value = encode_bounded(answer)
    assert len(value) <= MAX_VALUE_BYTES
    short = decode(value, Answer)
    assert len(short.layers) == len(short.missing) == 256
    assert short.truncated
