"""The transport contract: many records of one partition, with one future for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from transports import FAST, Broker, drain, fresh, running, seen, where

from anabranch.config.settings import KafkaConfig
from anabranch.dev.local_kafka import LocalKafka
from anabranch.errors import BrokerError, ProduceError, RecordRefused, TopicError
from anabranch.kafka.client import KafkaTransport
from anabranch.kafka.client.producer import _MAX_REQUEST_BYTES
from anabranch.kafka.transport import (
    Committed,
    Outcome,
    Producer,
    ProducerRecord,
    Record,
    TopicPartition,
    TopicState,
)

LIMIT = 20_000
BOUND_S = 30


def numbered(count: int, size: int = 0, start: int = 0) -> list[ProducerRecord]:
    """Records that say which they are."""
    return [ProducerRecord(b"%d" % n + b"." * size) for n in range(start, start + count)]


async def read(broker: Broker, topic: str, count: int) -> list[Record]:
    async with running(broker.transport("r").reader("r")) as reader:
        reader.assign({TopicPartition(topic, 0): 0})
        async with asyncio.timeout(BOUND_S):
            return (await drain(reader, count))[0]


def refused(outcomes: Sequence[Outcome]) -> list[int]:
    return [n for n, outcome in enumerate(outcomes) if isinstance(outcome, RecordRefused)]


@where()
async def test_a_batch_arrives_as_it_was_and_says_where(broker: Broker) -> None:
    topic = await broker.topic()
    records = [
        ProducerRecord(b"value", b"key", [("one", b"1"), ("two", b"2"), ("one", b"3")]),
        ProducerRecord(None, b"key", (("name", b""),)),
        ProducerRecord(b""),
        *numbered(100),
    ]
    async with running(broker.transport().producer("p")) as producer:
        before = await producer.send_and_wait(topic, b"before", partition=0)
        offsets = await (await producer.send_batch(topic, 0, records))
        assert list(offsets) == [before.offset + 1 + n for n in range(len(records))]
        assert list(await (await producer.send_batch(topic, 0, []))) == []
    _, *found = await read(broker, topic, 1 + len(records))
    assert [record.offset for record in found] == list(offsets)
    for sent, there in zip(records, found, strict=True):
        assert there.value == sent.value
        assert there.key == sent.key
        assert list(there.headers) == list(sent.headers)


@where()
async def test_what_is_too_much_for_one_batch_keeps_its_order(broker: Broker) -> None:
    topic = await broker.topic()
    records = numbered(30, 50_000)
    async with running(broker.transport().producer("p")) as producer:
        offsets = await (await producer.send_batch(topic, 0, records))
    found = await read(broker, topic, len(records))
    assert [record.value for record in found] == [record.value for record in records]
    assert list(offsets) == [record.offset for record in found]


@where()
async def test_batches_and_records_keep_the_order_in_which_they_were_sent(broker: Broker) -> None:
    topic = await broker.topic()
    sent: list[bytes | None] = []
    said: list[int] = []
    async with running(broker.transport().producer("p")) as producer:
        for round_ in range(40):
            records = numbered(round_ % 7, 3_000, 1_000 * round_)
            batch = await producer.send_batch(topic, 0, records)
            single = await producer.send(topic, b"single %d" % round_, partition=0)
            sent += [*(record.value for record in records), b"single %d" % round_]
            if round_ % 10 == 0:  # else they are on their way together
                said += [*await batch, (await single).offset]
    found = await read(broker, topic, len(sent))
    assert [record.value for record in found] == sent
    at = {record.offset for record in found}
    assert at.issuperset(said)


@where()
async def test_batches_from_many_sides_are_told_apart(broker: Broker) -> None:
    topic = await broker.topic()

    async def send(producer: Producer, side: int) -> dict[int, bytes | None]:
        told: dict[int, bytes | None] = {}
        for _ in range(5):
            records = [ProducerRecord(b"%d" % side + b"." * 10_000) for _ in range(9)]
            outcomes = await (await producer.send_batch(topic, 0, records))
            assert not refused(outcomes)
            told |= {int(str(o)): r.value for o, r in zip(outcomes, records, strict=True)}
        return told

    async with running(broker.transport().producer("p")) as producer:
        sides = await asyncio.gather(*(send(producer, side) for side in range(6)))
    told = {offset: value for side in sides for offset, value in side.items()}
    found = await read(broker, topic, 6 * 5 * 9)
    assert told == {record.offset: record.value for record in found}


@where("create_topics")
async def test_of_a_batch_the_refused_alone_are_not_there(broker: Broker) -> None:
    topic = await broker.topic({"max.message.bytes": str(LIMIT)})
    records = numbered(100, 100)
    for n in (0, 40, 99):
        records[n] = ProducerRecord(b"x" * 2 * LIMIT)
    records[60] = ProducerRecord(b"x" * (_MAX_REQUEST_BYTES + 1))
    async with running(broker.transport().producer("p")) as producer:
        for _ in range(2):
            outcomes = await (await producer.send_batch(topic, 0, records))
            assert refused(outcomes) == [0, 40, 60, 99]
        last = await producer.send_and_wait(topic, b"last", partition=0)
    assert last.offset == 2 * 96
    found = await read(broker, topic, 2 * 96 + 1)
    by_offset = {record.offset: record.value for record in found}
    for n, outcome in enumerate(outcomes):
        if not isinstance(outcome, RecordRefused):
            assert by_offset[outcome] == records[n].value


@where("create_topics")
async def test_who_shared_a_batch_with_a_refused_one_of_others_is_there(broker: Broker) -> None:
    topic = await broker.topic({"max.message.bytes": str(LIMIT)})
    async with running(broker.transport().producer("p")) as producer:
        await producer.send_and_wait(topic, b"first", partition=0)
        batches = [
            await producer.send_batch(topic, 0, records)
            for records in (numbered(20), [ProducerRecord(b"x" * 2 * LIMIT)], numbered(20))
        ]
        one, two, three = await asyncio.gather(*batches)
    assert [refused(one), refused(two), refused(three)] == [[], [0], []]
    assert sorted(int(str(offset)) for offset in (*one, *three)) == list(range(1, 41))


@where("transactions")
async def test_a_batch_belongs_to_its_transaction(broker: Broker) -> None:
    topic, group = await broker.topic({"max.message.bytes": str(LIMIT)}), fresh("group")
    id_ = fresh("id")
    records = numbered(20, 100)
    records[10] = ProducerRecord(b"x" * 2 * LIMIT)
    async with running(broker.transport().transactional("p", id_)) as producer:
        for round_ in range(2):
            await producer.begin()
            outcomes = await (await producer.send_batch(topic, 0, records))
            assert refused(outcomes) == [10]
            await producer.commit({TopicPartition(topic, 0): Committed(round_, "")}, group)
        await producer.begin()
        await (await producer.send_batch(topic, 0, numbered(5)))
        # and is never committed: whoever starts the id anew aborts it
    async with running(broker.transport().transactional("p", id_)) as producer:
        await producer.begin()
        await (await producer.send_batch(topic, 0, numbered(1)))
        await producer.commit({TopicPartition(topic, 0): Committed(3, "")}, group)
    found = await read(broker, topic, 2 * 19 + 1)
    expected = [record.value for n, record in enumerate(records) if n != 10]
    assert sorted(str(record.value) for record in found) == sorted(
        map(str, [*expected, *expected, b"0"])
    )


@where("transactions")
async def test_a_fenced_producer_sends_no_batch(broker: Broker) -> None:
    topic, id_ = await broker.topic(), fresh("id")
    one = broker.transport().transactional("p", id_)
    await one.start()
    await one.begin()
    await (await one.send_batch(topic, 0, numbered(1)))
    async with running(broker.transport().transactional("p", id_)):
        with pytest.raises(BrokerError):
            await (await one.send_batch(topic, 0, numbered(3)))
    async with asyncio.timeout(BOUND_S):
        await asyncio.gather(one.stop(), return_exceptions=True)


@where("missing_topics")
async def test_a_batch_for_nowhere_says_so(broker: Broker) -> None:
    topic, missing = await broker.topic(), fresh("missing")
    async with running(broker.transport(request_timeout_ms=500).producer("p")) as producer:
        with pytest.raises(TopicError, match=missing):
            await producer.send_batch(missing, 0, numbered(1))
        with pytest.raises(TopicError, match=topic):
            await producer.send_batch(topic, 99, numbered(1))
        with pytest.raises(ProduceError, match="a key or a value"):
            await producer.send_batch(topic, 0, [ProducerRecord(None)])
        assert list(await (await producer.send_batch(topic, 0, numbered(1)))) == [0]


@where("create_topics")
async def test_who_stops_delivers_what_was_refused_with_others(broker: Broker) -> None:
    topic = await broker.topic({"max.message.bytes": str(LIMIT)})
    async with running(broker.transport().producer("p")) as producer:
        records = [*numbered(9), ProducerRecord(b"x" * 2 * LIMIT)]
        sent = await producer.send_batch(topic, 0, records)
    assert refused(await sent) == [9]
    assert len(await read(broker, topic, 9)) == 9


@pytest.mark.kafka
async def test_a_batch_outlasts_a_broker_that_is_away(kafka: str, kafka_node: LocalKafka) -> None:
    transport = KafkaTransport(
        KafkaConfig(bootstrap=kafka, **{**FAST, "request_timeout_ms": 3_000})
    )
    topic = fresh("away")
    async with running(transport.admin()) as admin:
        await admin.create({topic: TopicState(1, {})}, 1)
        await seen(admin, [topic])
    async with running(transport.producer("p")) as producer:
        await (await producer.send_batch(topic, 0, numbered(3)))
        kafka_node.node(1).suspend()
        try:
            sent = await producer.send_batch(topic, 0, numbered(3))
            more = await producer.send_batch(topic, 0, numbered(3))
            await asyncio.sleep(4)  # longer than a request may take
        finally:
            kafka_node.node(1).resume()
        async with asyncio.timeout(BOUND_S):
            assert [*await sent, *await more] == list(range(3, 9))
