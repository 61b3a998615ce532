"""The transport contract: what cannot be read or taken costs itself, on every implementation."""

from __future__ import annotations

import asyncio

import pytest
from raw_batches import CODECS, batch, record
from transports import Broker, Listener, drain, fill, fresh, running, where

from anabranch.errors import ProduceError
from anabranch.kafka.transport import GroupConsumer, Reader, Record, TopicPartition

BOMB = batch([record(0, b"\x00" * 70_000_000)], codec="zstd")


@where()
async def test_a_reader_passes_what_nobody_can_unpack(broker: Broker) -> None:
    at = TopicPartition(await broker.topic(), 0)
    await fill(broker, at.topic, 2, [0])
    await broker.append_unreadable(at)
    await fill(broker, at.topic, 2, [0])
    async with running(broker.transport().reader("r")) as reader:
        reader.assign({at: 0})
        found = await until_end(reader, at)
        assert reader.position(at) == 7
    expect_one_unreadable(found)


@where()
async def test_a_member_passes_what_nobody_can_unpack(broker: Broker) -> None:
    at = TopicPartition(await broker.topic(), 0)
    await fill(broker, at.topic, 2, [0])
    await broker.append_unreadable(at)
    await fill(broker, at.topic, 2, [0])
    consumer = broker.transport().consumer("c", fresh("group"), [at.topic], Listener())
    async with running(consumer):
        found = []
        while not found or found[-1].offset < 6:
            found += await batch_of(consumer, at)
    expect_one_unreadable(found)


def expect_one_unreadable(found: list[Record]) -> None:
    """It is told at the last of its offsets, 2 to 4, with its bytes and the reason."""
    assert [r.offset for r in found if r.error is None and r.offset != 2] == [0, 1, 5, 6]
    [bad] = [r for r in found if r.error is not None]
    assert bad.offset == 4
    assert "cannot be unpacked" in str(bad.error)
    assert bad.value
    assert (bad.key, bad.headers) == (None, ())


async def batch_of(client: GroupConsumer | Reader, at: TopicPartition) -> list[Record]:
    return list((await client.fetch(500)).get(at, ()))


async def until_end(reader: Reader, at: TopicPartition) -> list[Record]:
    found: list[Record] = []
    end = (await reader.ends([at]))[at]
    async with asyncio.timeout(60):
        while reader.position(at) < end:
            found += await batch_of(reader, at)
    return found


@where("raw_batches")
@pytest.mark.parametrize("codec", CODECS)
async def test_every_codec_is_read_on_every_kind_of_client(broker: Broker, codec: str) -> None:
    at = TopicPartition(await broker.topic(), 0)
    await broker.append_raw(at, batch([record(n, b"%d" % n) for n in range(3)], codec=codec))
    async with running(broker.transport().reader("r")) as reader:
        reader.assign({at: 0})
        assert [r.value for r in (await drain(reader, 3))[0]] == [b"0", b"1", b"2"]
    consumer = broker.transport().consumer("c", fresh("group"), [at.topic], Listener())
    async with running(consumer):
        assert [r.value for r in (await drain(consumer, 3))[0]] == [b"0", b"1", b"2"]


@where("create_topics", "raw_batches")
@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_a_codec_that_the_topic_sets_is_read(broker: Broker, codec: str) -> None:
    topic = await broker.topic({"compression.type": codec})
    await fill(broker, topic, 200, [0])
    async with running(broker.transport().reader("r")) as reader:
        reader.assign({TopicPartition(topic, 0): 0})
        found = (await drain(reader, 200))[0]
    assert [r.value for r in found] == [b"%d" % n for n in range(200)]


@where("raw_batches")
@pytest.mark.parametrize("codec", ["none", "zstd"])
async def test_header_names_and_values_may_be_anything(broker: Broker, codec: str) -> None:
    at = TopicPartition(await broker.topic(), 0)
    headers = [(b"\xff\xfe", b"1"), (b"traceparent", None), (b"", b"2")]
    await broker.append_raw(at, batch([record(0, headers=headers), record(1)], codec=codec))
    async with running(broker.transport().reader("r")) as reader:
        reader.assign({at: 0})
        [odd, next_] = (await drain(reader, 2))[0]
    assert odd.headers == (("\ufffd\ufffd", b"1"), ("traceparent", b""), ("", b"2"))
    assert (odd.error, next_.offset) == (None, 1)


@where("raw_batches")
@pytest.mark.parametrize("delta", [-5, 0, 77, 2**31 - 1])
async def test_an_offset_that_lies_does_not_move_the_position(broker: Broker, delta: int) -> None:
    at = TopicPartition(await broker.topic(), 0)
    await broker.append_raw(at, batch([record(0), record(delta), record(2)]))
    await fill(broker, at.topic, 1, [0])
    async with running(broker.transport().reader("r")) as reader:
        reader.assign({at: 0})
        found = await until_end(reader, at)
        assert reader.position(at) == 4
    assert [(r.offset, r.error is None) for r in found] == [
        (0, True), (1, False), (2, True), (3, True)
    ]  # fmt: skip


@where("raw_batches")
async def test_what_would_be_enormous_is_passed(broker: Broker) -> None:
    at = TopicPartition(await broker.topic(), 0)
    await broker.append_raw(at, BOMB)
    await fill(broker, at.topic, 1, [0])
    async with running(broker.transport().reader("r")) as reader:
        reader.assign({at: 0})
        found = await until_end(reader, at)
    assert [(r.offset, r.error is None) for r in found] == [(0, False), (1, True)]
    assert found[0].value == BOMB


@where("disk")
async def test_a_batch_that_rotted_on_the_brokers_disk_costs_itself(broker: Broker) -> None:
    at = TopicPartition(await broker.topic(), 0)
    for value in (b"before", b"rotten", b"after"):
        async with running(broker.transport().producer("p")) as producer:
            await producer.send_and_wait(at.topic, value, partition=0)
    broker.rot(at, b"rotten")
    async with running(broker.transport().reader("r")) as reader:
        reader.assign({at: 0})
        found = await until_end(reader, at)
    assert [(r.offset, r.value) for r in found if r.error is None] == [
        (0, b"before"),
        (2, b"after"),
    ]
    assert "offset 1 cannot be unpacked: its checksum is wrong" in str(found[1].error)


@where("create_topics")
async def test_a_topics_bound_counts_headers_and_refuses_one_record_alone(broker: Broker) -> None:
    topic = await broker.topic({"max.message.bytes": "1000"})
    async with running(broker.transport().producer("p")) as producer:
        refused = await producer.send(topic, b"x", partition=0, headers=[("h", b"y" * 2_000)])
        with pytest.raises(Exception):  # noqa: B017, PT011  # the client library's own
            await refused
        ack = await producer.send_and_wait(topic, b"x", partition=0)
    assert ack.offset == 0


@where()
async def test_what_no_broker_would_take_is_refused(broker: Broker) -> None:
    topic = await broker.topic()
    async with running(broker.transport().producer("p")) as producer:
        with pytest.raises(ProduceError, match=topic):
            await producer.send_and_wait(topic, b"x" * 6_000_000, partition=0)


@where("create_topics")
async def test_a_compacted_topic_takes_no_record_without_a_key(broker: Broker) -> None:
    topic = await broker.topic({"cleanup.policy": "compact"})
    async with running(broker.transport().producer("p")) as producer:
        with pytest.raises(ProduceError, match=topic):
            await producer.send_and_wait(topic, b"x", partition=0)
        await producer.send_and_wait(topic, b"x", key=b"", partition=0)
