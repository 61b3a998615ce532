"""The transport contract: a record that the broker refuses costs itself, not those that follow."""

from __future__ import annotations

import asyncio

import pytest
from transports import Broker, fresh, running, where

from anabranch.errors import RecordRefused
from anabranch.kafka.transport import Acked, Committed, Producer, ProducerRecord, TopicPartition

LIMIT = 20_000


async def _send_all(producer: Producer, topic: str, *sizes: int) -> list[Acked | BaseException]:
    """Hand all over at once, and wait for what becomes of each."""
    sent = [await producer.send(topic, b"x" * size, partition=0) for size in sizes]
    return await asyncio.gather(*sent, return_exceptions=True)


@where("create_topics")
async def test_after_a_refusal_the_same_producer_goes_on(broker: Broker) -> None:
    topic = await broker.topic({"max.message.bytes": str(LIMIT)})
    async with running(broker.transport().producer("p")) as producer:
        for round_ in range(3):
            with pytest.raises(RecordRefused):
                await producer.send_and_wait(topic, b"x" * 2 * LIMIT, partition=0)
            acked = await producer.send_and_wait(topic, b"x", partition=0)
            assert acked.offset == round_
        assert (await producer.send_and_wait(topic, b"x", partition=1)).offset == 0


@where("create_topics")
async def test_who_shared_a_batch_with_a_refused_record_is_not_lost(broker: Broker) -> None:
    topic = await broker.topic({"max.message.bytes": str(LIMIT)})
    sizes = [10, 2 * LIMIT, *[1_000] * 60, 3 * LIMIT, 10]
    async with running(broker.transport().producer("p")) as producer:
        await producer.send_and_wait(topic, b"first", partition=0)
        outcomes = await _send_all(producer, topic, *sizes)
        last = await producer.send_and_wait(topic, b"last", partition=0)
    refused = [size for size, outcome in zip(sizes, outcomes, strict=True) if _failed(outcome)]
    assert refused == [2 * LIMIT, 3 * LIMIT]
    offsets = sorted(outcome.offset for outcome in outcomes if not isinstance(outcome, Exception))
    assert offsets == list(range(1, len(sizes) - 1))
    assert last.offset == len(sizes) - 1


@where("create_topics", "transactions")
async def test_a_transaction_goes_on_without_what_was_refused(broker: Broker) -> None:
    topic, group = await broker.topic({"max.message.bytes": str(LIMIT)}), fresh("group")
    at = TopicPartition(topic, 0)
    async with running(broker.transport().transactional("p", fresh("id"))) as sender:
        for _ in range(2):
            await sender.begin()
            outcomes = await _send_all(sender, topic, 10, 2 * LIMIT, 10)
            assert list(map(_failed, outcomes)) == [False, True, False]
            await sender.commit({at: Committed(1, "")}, group)
    async with running(broker.transport("r").reader("r")) as reader:
        reader.assign({at: 0})
        found: list[bytes | None] = []
        while len(found) < 4:
            for records in (await reader.fetch(200)).values():
                found += [record.value for record in records]
    assert found == [b"x" * 10] * 4


@where("create_topics")
async def test_what_a_compacted_topic_does_not_take_costs_itself(broker: Broker) -> None:
    topic = await broker.topic({"cleanup.policy": "compact"})
    async with running(broker.transport().producer("p")) as producer:
        with pytest.raises(RecordRefused):
            await producer.send_and_wait(topic, b"no key", partition=0)
        records = [ProducerRecord(b"value", key) for key in (b"1", None, b"2", b"3", None)]
        outcomes = await (await producer.send_batch(topic, 0, records))
        assert [n for n, outcome in enumerate(outcomes) if _failed(outcome)] == [1, 4]
        last = await producer.send_and_wait(topic, b"value", key=b"4", partition=0)
    assert last.offset == 3


def _failed(outcome: object) -> bool:
    return isinstance(outcome, RecordRefused)
