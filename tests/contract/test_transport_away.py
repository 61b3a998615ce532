"""A broker that is not there, or no longer there: every call ends, and says what is wrong."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from transports import FAST, PARTITIONS, Kafka, Listener, drain, fill, fresh, running

from anabranch.config.settings import KafkaConfig
from anabranch.dev.local_kafka import LocalKafka
from anabranch.errors import BrokerError, BrokerUnavailable, ProduceError, TopicError
from anabranch.kafka.client import KafkaTransport
from anabranch.kafka.transport import Committed, TopicPartition

QUICK_MS = 500
BOUND_S = 30
"""Far above every timeout in these tests, far below those of aiokafka."""


def clients(bootstrap: str, **kafka: int) -> dict[str, Any]:
    """One of each kind."""
    transport = KafkaTransport(KafkaConfig(bootstrap=bootstrap, **{**FAST, **kafka}))
    return {
        "producer": transport.producer("p"),
        "consumer": transport.consumer("c", fresh("group"), ["t"], Listener()),
        "reader": transport.reader("r"),
        "admin": transport.admin(),
    }


KINDS = ["producer", "consumer", "reader", "admin"]


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def closed() -> str:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("address", ["closed", "silent"])
@pytest.mark.parametrize("kind", KINDS)
async def test_starting_without_a_broker_says_where_it_was_sought(
    kind: str, address: str, request: pytest.FixtureRequest
) -> None:
    bootstrap = request.getfixturevalue(address)
    before = asyncio.all_tasks()
    client = clients(bootstrap, request_timeout_ms=QUICK_MS)[kind]
    async with asyncio.timeout(BOUND_S):
        with pytest.raises(BrokerUnavailable, match=bootstrap):
            await client.start()
        await client.stop()
    assert asyncio.all_tasks() == before, "nothing is left running"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_start_that_is_cancelled_leaves_nothing_running(kind: str, silent: str) -> None:
    before = asyncio.all_tasks()
    client = clients(silent)[kind]
    starting = asyncio.create_task(client.start())
    await asyncio.sleep(0.01)
    starting.cancel()
    async with asyncio.timeout(BOUND_S):
        with pytest.raises(asyncio.CancelledError):
            await starting
    assert asyncio.all_tasks() == before


@pytest.mark.kafka
async def test_a_member_whose_topic_does_not_exist_does_not_start(kafka: str) -> None:
    client = clients(kafka, request_timeout_ms=QUICK_MS)["consumer"]
    async with asyncio.timeout(BOUND_S):
        with pytest.raises(TopicError):
            await client.start()


@pytest.fixture
def broker(request: pytest.FixtureRequest, kafka: str) -> Kafka:
    return Kafka(request)


@contextmanager
def suspended(node: LocalKafka) -> Iterator[None]:
    """Connections stay open and nothing answers: the broker that does not even refuse."""
    node.node(1).suspend()
    try:
        yield
    finally:
        node.node(1).resume()


@pytest.mark.kafka
async def test_a_commit_without_an_answer_is_no_lost_generation(
    broker: Kafka, kafka_node: LocalKafka
) -> None:
    topic = await broker.topic()
    at = TopicPartition(topic, 0)
    transport = broker.transport(request_timeout_ms=QUICK_MS, session_timeout_ms=20_000)
    async with running(transport.consumer("c", fresh("group"), [topic], Listener())) as one:
        with suspended(kafka_node):
            async with asyncio.timeout(BOUND_S):
                with pytest.raises(BrokerUnavailable):
                    await one.commit({at: Committed(1, "while away")})
                with pytest.raises(BrokerUnavailable):
                    await one.committed([at])
                assert await one.fetch(100) == {}
        async with asyncio.timeout(BOUND_S):
            await one.commit({at: Committed(2, "back")})
            assert await one.committed([at]) == {at: Committed(2, "back")}


@pytest.mark.kafka
async def test_lookups_without_an_answer_end(broker: Kafka, kafka_node: LocalKafka) -> None:
    topic = await broker.topic()
    at = TopicPartition(topic, 0)
    await fill(broker, topic, 1, [0])
    transport = broker.transport(request_timeout_ms=QUICK_MS)
    async with (
        running(transport.producer("p")) as producer,
        running(transport.reader("r")) as reader,
        running(transport.admin()) as admin,
    ):
        reader.assign({at: 0})
        assert len((await drain(reader, 1))[0]) == 1
        with suspended(kafka_node):
            async with asyncio.timeout(BOUND_S):
                for asking in (
                    producer.partitions(fresh("unknown")),
                    reader.partitions(fresh("unknown")),
                    reader.ends([at]),
                    admin.topics([topic]),
                ):
                    with pytest.raises(BrokerUnavailable):
                        await asking
                assert await reader.fetch(100) == {}
        await fill(broker, topic, 1, [0])
        async with asyncio.timeout(BOUND_S):
            assert len((await drain(reader, 1))[0]) == 1


@pytest.mark.kafka
@pytest.mark.parametrize("kind", ["consumer", "reader", "admin"])
async def test_stopping_without_a_broker_ends_quietly_and_leaves_nothing(
    kind: str, broker: Kafka, kafka_node: LocalKafka
) -> None:
    before = asyncio.all_tasks()
    async with stopping_while_suspended(kind, broker, kafka_node) as client:
        await client.stop()
    assert asyncio.all_tasks() == before


@pytest.mark.kafka
async def test_a_producer_says_what_it_could_not_deliver(
    broker: Kafka, kafka_node: LocalKafka
) -> None:
    before = asyncio.all_tasks()
    async with stopping_while_suspended("producer", broker, kafka_node) as producer:
        topic = producer.topic
        sent = await producer.send(topic, b"x", partition=0)
        with pytest.raises(ProduceError):
            await producer.stop()
        assert isinstance(sent.exception(), Exception)
    assert asyncio.all_tasks() == before


@pytest.mark.kafka
async def test_a_hanging_callback_does_not_keep_a_member_from_stopping(broker: Kafka) -> None:
    topic, group = await broker.topic(), fresh("group")
    before = asyncio.all_tasks()

    async def hang(partitions: Any) -> None:
        if partitions:
            await asyncio.Event().wait()

    ones, twos = Listener(on_revoked=hang), Listener()
    one = broker.transport().consumer("one", group, [topic], ones)
    two = broker.transport().consumer("two", group, [topic], twos)
    await one.start()
    async with running(two):
        await ones.hears("revoked", times=2)
        async with asyncio.timeout(BOUND_S):
            await one.stop()
            await twos.owns(PARTITIONS)
        with pytest.raises(BrokerError):
            await one.fetch(0)
    assert asyncio.all_tasks() == before, "no heartbeat keeps its partitions"


@asynccontextmanager
async def stopping_while_suspended(
    kind: str, broker: Kafka, node: LocalKafka
) -> AsyncIterator[Any]:
    topic = await broker.topic()
    timeouts = {"request_timeout_ms": QUICK_MS, "rebalance_timeout_ms": QUICK_MS}
    transport = broker.transport(**timeouts)
    client: Any = {
        "producer": lambda: transport.producer("p"),
        "consumer": lambda: transport.consumer("c", fresh("group"), [topic], Listener()),
        "reader": lambda: transport.reader("r"),
        "admin": transport.admin,
    }[kind]()
    await client.start()
    if kind == "producer":
        await client.send_and_wait(topic, b"x", partition=0)
        client.topic = topic
    with suspended(node):
        async with asyncio.timeout(BOUND_S):
            yield client
