"""The transport contract: what a transaction commits counts as a whole, and once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from transports import Broker, Listener, drain, fresh, running, values, where

from anabranch.errors import BrokerError, ProducerFenced, TopicError
from anabranch.kafka.transport import (
    Committed,
    GroupConsumer,
    Reader,
    TopicPartition,
    TransactionalProducer,
)

DONE = Committed(7, "answered" * 100)


def producer(broker: Broker, transactional_id: str, process: str = "main") -> TransactionalProducer:
    return broker.transport(process).transactional(process, transactional_id)


@asynccontextmanager
async def reading(broker: Broker, topic: str) -> AsyncIterator[Reader]:
    async with running(broker.transport("reader").reader("reader")) as reader:
        reader.assign({TopicPartition(topic, 0): 0})
        yield reader


@asynccontextmanager
async def member(broker: Broker, group: str, topic: str) -> AsyncIterator[GroupConsumer]:
    listener = Listener()
    consumer = broker.transport("member").consumer("member", group, [topic], listener)
    async with running(consumer):
        await listener.hears("assigned")
        yield consumer


async def say(sender: TransactionalProducer, topic: str, *said: bytes) -> None:
    await asyncio.gather(*[await sender.send(topic, value, partition=0) for value in said])


@where("transactions")
async def test_records_and_offsets_of_a_transaction_come_out_together(broker: Broker) -> None:
    topic, group, id_ = await broker.topic(), fresh("group"), fresh("id")
    at = TopicPartition(topic, 0)
    async with (
        running(producer(broker, id_)) as sender,
        reading(broker, topic) as reader,
        member(broker, group, topic) as consumer,
    ):
        for round_ in range(2):
            await sender.begin()
            await say(sender, topic, b"a%d" % round_, b"b%d" % round_)
            assert await reader.fetch(100) == {}
            await sender.commit({at: DONE._replace(offset=round_)}, group)
            assert values(await drain(reader, 2)) == {0: [b"a%d" % round_, b"b%d" % round_]}
        async with asyncio.timeout(30):  # the offsets' own marker may come a moment later
            while await consumer.committed([at]) != {at: DONE._replace(offset=1)}:
                pass


@where("transactions")
async def test_offsets_alone_make_a_transaction(broker: Broker) -> None:
    topic, group, id_ = await broker.topic(), fresh("group"), fresh("id")
    at = TopicPartition(topic, 0)
    async with member(broker, group, topic) as consumer:
        async with running(producer(broker, id_)) as sender:
            await sender.begin()
            await sender.commit({at: DONE}, group)
        async with running(producer(broker, id_)):  # whoever comes next reads what was committed
            assert await consumer.committed([at]) == {at: DONE}


@where("transactions")
async def test_who_starts_an_id_anew_fences_the_one_before_and_undoes_what_it_left(
    broker: Broker,
) -> None:
    topic, group, id_ = await broker.topic(), fresh("group"), fresh("id")
    at = TopicPartition(topic, 0)
    async with (
        running(producer(broker, id_, "zombie")) as zombie,
        reading(broker, topic) as reader,
        member(broker, group, topic) as consumer,
    ):
        await zombie.begin()
        await say(zombie, topic, b"of a zombie")
        async with running(producer(broker, id_, "heir")) as heir:
            with pytest.raises(ProducerFenced):
                await zombie.commit({at: Committed(9, "")}, group)
            await heir.begin()
            await say(heir, topic, b"of its heir")
            await heir.commit({at: DONE}, group)
            assert values(await drain(reader, 1)) == {0: [b"of its heir"]}
            assert reader.position(at) > 1, "past what was aborted"
        async with running(producer(broker, id_, "next")):
            assert await consumer.committed([at]) == {at: DONE}


@where("transactions")
async def test_a_zombie_cannot_send_either(broker: Broker) -> None:
    topic, group, id_ = await broker.topic(), fresh("group"), fresh("id")
    async with (
        running(producer(broker, id_, "zombie")) as zombie,
        reading(broker, topic) as reader,
    ):
        await zombie.begin()
        await say(zombie, topic, b"left open")
        async with running(producer(broker, id_, "heir")) as heir:
            with pytest.raises(BrokerError):
                await zombie.send_and_wait(topic, b"too late", partition=0)
            await heir.begin()
            await say(heir, topic, b"of its heir")
            await heir.commit({TopicPartition(topic, 0): DONE}, group)
        assert values(await drain(reader, 1)) == {0: [b"of its heir"]}


@where("transactions")
async def test_what_is_left_open_too_long_is_undone_and_holds_nobody_up(broker: Broker) -> None:
    topic, group = await broker.topic(), fresh("group")
    async with (
        running(producer(broker, fresh("id"), "slow")) as slow,
        running(producer(broker, fresh("id"), "other")) as other,
        reading(broker, topic) as reader,
    ):
        await slow.begin()
        await say(slow, topic, b"never")
        await other.begin()
        await say(other, topic, b"behind it")
        await other.commit({TopicPartition(topic, 0): DONE}, group)
        assert await reader.fetch(100) == {}, "what is open holds back what comes after it"
        assert values(await drain(reader, 1)) == {0: [b"behind it"]}
        with pytest.raises(BrokerError):
            await slow.commit({TopicPartition(topic, 0): DONE}, group)


@where("transactions")
async def test_a_partition_that_does_not_exist_is_said_at_once(broker: Broker) -> None:
    topic = await broker.topic()
    async with running(producer(broker, fresh("id"))) as sender:
        await sender.begin()
        with pytest.raises(TopicError):
            await sender.send(topic, b"x", partition=999)


@where("transactions")
async def test_what_a_closed_producer_left_open_is_seen_by_nobody(broker: Broker) -> None:
    topic, id_ = await broker.topic(), fresh("id")
    async with reading(broker, topic) as reader:
        async with running(producer(broker, id_)) as sender:
            await sender.begin()
            await say(sender, topic, b"never")
        with pytest.raises(BrokerError):
            await sender.commit({TopicPartition(topic, 0): DONE}, fresh("group"))
        async with running(producer(broker, id_)) as sender:
            await sender.begin()
            await say(sender, topic, b"once")
            await sender.commit({TopicPartition(topic, 0): DONE}, fresh("group"))
        assert values(await drain(reader, 1)) == {0: [b"once"]}


@where("transactions")
async def test_a_topic_that_is_new_does_not_hold_up_what_is_on_its_way_to_an_old_one(
    broker: Broker,
) -> None:
    old, group = await broker.topic(), fresh("group")
    async with running(producer(broker, fresh("id"))) as sender:
        new = await broker.topic()
        await sender.begin()
        first = await sender.send(old, b"x", partition=0)
        async with asyncio.timeout(20):
            second = await sender.send(new, b"x", partition=0)
            await asyncio.gather(first, second)
        await sender.commit({TopicPartition(old, 0): DONE}, group)
