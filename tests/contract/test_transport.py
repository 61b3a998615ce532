"""The transport contract: records go in and come out the same on every implementation."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from transports import PARTITIONS, Broker, drain, fill, fresh, running, values, where

from anabranch.errors import BrokerError, ProduceError, TopicError
from anabranch.kafka.client.producer import KafkaProducer
from anabranch.kafka.ranges import read_ranges
from anabranch.kafka.transport import CREATE_TIME, LOG_APPEND_TIME, TopicPartition, TopicState
from anabranch.runtime.supervisor import until

# ── producing ──────────────────────────────────────────────────────────────────────────────


@where()
async def test_acknowledged_offsets_ascend_without_a_gap(broker: Broker) -> None:
    topic = await broker.topic()
    async with running(broker.transport().producer("p")) as producer:
        sent = [await producer.send(topic, b"x", partition=1) for _ in range(50)]
        acks = await asyncio.gather(*sent)
        last = await producer.send_and_wait(topic, b"x", partition=1)
    assert [(ack.partition, ack.offset) for ack in [*acks, last]] == [(1, n) for n in range(51)]


@where()
async def test_a_key_goes_to_one_partition_whoever_sends_it(broker: Broker) -> None:
    topic = await broker.topic()
    chosen: dict[bytes, set[int]] = {b"%d" % n: set() for n in range(8)}
    for name in ("one", "other"):
        async with running(broker.transport(name).producer(name)) as producer:
            for key in chosen:
                ack = await producer.send_and_wait(topic, b"x", key=key)
                chosen[key].add(ack.partition)
    assert all(len(partitions) == 1 for partitions in chosen.values())
    assert len(set.union(*chosen.values())) > 1, "different keys are spread"


@where()
async def test_records_come_out_in_the_order_in_which_they_went_in(broker: Broker) -> None:
    topic = await broker.topic()
    await fill(broker, topic, 300)
    async with running(broker.transport().reader("r")) as reader:
        reader.assign({TopicPartition(topic, n): 0 for n in range(PARTITIONS)})
        found = await drain(reader, 300 * PARTITIONS)
    expected = [b"%d" % number for number in range(300)]
    assert values(found) == dict.fromkeys(range(PARTITIONS), expected)
    assert all([record.offset for record in batch] == list(range(300)) for batch in found.values())


@where()
async def test_a_record_is_read_as_it_was_sent(broker: Broker) -> None:
    topic = await broker.topic()
    headers = [("a", b"1"), ("b", b""), ("a", b"2")]
    at = TopicPartition(topic, 2)
    async with (
        running(broker.transport().producer("p")) as producer,
        running(broker.transport().reader("r")) as reader,
    ):
        await producer.send_and_wait(topic, b"value", key=b"key", partition=2, headers=headers)
        await producer.send_and_wait(topic, b"value", partition=2)
        reader.assign({at: 0})
        full, bare = (await drain(reader, 2))[2]
    assert (full.topic, full.partition, full.offset) == (topic, 2, 0)
    assert (full.key, full.value) == (b"key", b"value")
    assert full.headers == tuple(headers)
    assert (bare.key, bare.headers) == (None, ())
    assert full.leader_epoch == bare.leader_epoch >= 0


@where()
async def test_no_value_and_an_empty_one_are_different(broker: Broker) -> None:
    topic = await broker.topic()
    async with (
        running(broker.transport().producer("p")) as producer,
        running(broker.transport().reader("r")) as reader,
    ):
        await producer.send_and_wait(topic, None, key=b"k", partition=0)
        await producer.send_and_wait(topic, b"", key=b"k", partition=0)
        reader.assign({TopicPartition(topic, 0): 0})
        found = await drain(reader, 2)
    assert values(found) == {0: [None, b""]}


@where()
async def test_a_record_of_nothing_is_refused(broker: Broker) -> None:
    topic = await broker.topic()
    async with running(broker.transport().producer("p")) as producer:
        with pytest.raises(ProduceError, match=topic):
            await producer.send(topic, None, partition=0)


@where("log_append_time")
async def test_the_broker_stamps_records_where_the_topic_says_so(broker: Broker) -> None:
    topic = await broker.topic({"message.timestamp.type": "LogAppendTime"})
    await fill(broker, topic, 1, [0])
    async with running(broker.transport().reader("r")) as reader:
        reader.assign({TopicPartition(topic, 0): 0})
        [record] = (await drain(reader, 1))[0]
    assert record.timestamp_type == LOG_APPEND_TIME
    assert isinstance(record.timestamp, int)


@where("create_topics")
async def test_the_producer_stamps_records_where_the_topic_says_so(broker: Broker) -> None:
    topic = await broker.topic({"message.timestamp.type": "CreateTime"})
    await fill(broker, topic, 1, [0])
    async with running(broker.transport().reader("r")) as reader:
        reader.assign({TopicPartition(topic, 0): 0})
        [record] = (await drain(reader, 1))[0]
    assert record.timestamp_type == CREATE_TIME


@where("topics_on_first_use")
async def test_topics_made_on_first_use_carry_the_producers_time(broker: Broker) -> None:
    topic = await broker.topic()
    await fill(broker, topic, 1, [0])
    async with running(broker.transport().reader("r")) as reader:
        reader.assign({TopicPartition(topic, 0): 0})
        [record] = (await drain(reader, 1))[0]
    assert record.timestamp_type == CREATE_TIME


@where()
async def test_a_partition_that_does_not_exist_is_an_error(broker: Broker) -> None:
    topic = await broker.topic()
    async with running(broker.transport().producer("p")) as producer:
        assert await producer.partitions(topic) == PARTITIONS
        with pytest.raises(TopicError, match=topic):
            await producer.send(topic, b"x", partition=PARTITIONS)


@where("missing_topics")
async def test_a_topic_that_does_not_exist_is_an_error(broker: Broker) -> None:
    missing = fresh("missing")
    transport = broker.transport(request_timeout_ms=500)
    async with (
        running(transport.producer("p")) as producer,
        running(transport.reader("r")) as reader,
    ):
        assert await producer.partitions(missing) == 0
        assert await reader.partitions(missing) == 0
        with pytest.raises(TopicError, match=missing):
            await producer.send_and_wait(missing, b"x")


@where("missing_topics")
async def test_a_topic_that_was_missing_is_seen_once_it_is_there(broker: Broker) -> None:
    topic = fresh("late")
    async with (
        running(broker.transport().producer("p")) as producer,
        running(broker.transport().reader("r")) as reader,
        running(broker.transport().admin()) as admin,
    ):
        assert await producer.partitions(topic) == await reader.partitions(topic) == 0
        await admin.create({topic: TopicState(3, {})}, 1)
        async with asyncio.timeout(30):
            while await producer.partitions(topic) != 3:
                pass
            while await reader.partitions(topic) != 3:
                pass


@where("create_topics")
async def test_a_record_larger_than_the_topic_takes_is_refused(broker: Broker) -> None:
    topic = await broker.topic({"max.message.bytes": "1000"})
    async with running(broker.transport().producer("p")) as producer:
        with pytest.raises(ProduceError, match=topic):
            await producer.send_and_wait(topic, b"x" * 2_000, partition=0)


@where()
async def test_a_producer_that_stops_delivers_what_it_was_given(broker: Broker) -> None:
    topic = await broker.topic()
    async with running(broker.transport().producer("p")) as producer:
        sent = [await producer.send(topic, b"x", partition=0) for _ in range(100)]
    assert [ack.result().offset for ack in sent] == list(range(100))


@where()
async def test_a_name_that_somebody_chose_is_looked_up_without_a_trace(broker: Broker) -> None:
    topic = await broker.topic()
    missing = [fresh("missing") for _ in range(700)]
    bad = ["a/b", ".", "..", "", "ü", "x" * 250, "x" * 40_000]
    async with running(broker.transport().producer("p")) as producer:
        found = await asyncio.gather(*(producer.lookup(name) for name in [topic, *missing, *bad]))
        assert found == [PARTITIONS] + [0] * 707
        if isinstance(producer, KafkaProducer):
            assert not producer._running.client._topics.intersection(missing)
        assert await producer.lookup(missing[0]) == 0, "asking for it did not make it"


# ── reading ────────────────────────────────────────────────────────────────────────────────


@where()
async def test_a_reader_starts_where_it_is_told_in_every_partition(broker: Broker) -> None:
    topic = await broker.topic()
    await fill(broker, topic, 5)
    async with running(broker.transport().reader("r")) as reader:
        starts = {TopicPartition(topic, 0): 0, TopicPartition(topic, 1): 3}
        reader.assign(starts)
        assert {at: reader.position(at) for at in starts} == starts
        found = await drain(reader, 7)
        assert values(found) == {0: [b"0", b"1", b"2", b"3", b"4"], 1: [b"3", b"4"]}
        assert {reader.position(at) for at in starts} == {5}
        with pytest.raises(BrokerError, match=topic):
            reader.position(TopicPartition(topic, 2))


@where()
async def test_the_ends_of_a_partition_are_told(broker: Broker) -> None:
    topic = await broker.topic()
    await fill(broker, topic, 3, [1])
    empty, filled = TopicPartition(topic, 0), TopicPartition(topic, 1)
    async with running(broker.transport().reader("r")) as reader:
        assert await reader.partitions(topic) == PARTITIONS
        assert await reader.beginnings([empty, filled]) == {empty: 0, filled: 0}
        assert await reader.ends([empty, filled]) == {empty: 0, filled: 3}
        assert await reader.ends([]) == {}


@where()
async def test_a_new_assignment_replaces_the_old(broker: Broker) -> None:
    topic = await broker.topic()
    async with running(broker.transport().reader("r")) as reader:
        reader.assign({TopicPartition(topic, 0): 0})
        await fill(broker, topic, 2, [0])
        assert values(await drain(reader, 2)) == {0: [b"0", b"1"]}
        reader.assign({TopicPartition(topic, 1): 0})
        await fill(broker, topic, 2, [0, 1])
        assert values(await drain(reader)) == {1: [b"0", b"1"]}


@where()
async def test_a_fetch_that_waits_follows_a_new_assignment(broker: Broker) -> None:
    topic = await broker.topic()
    await fill(broker, topic, 3, [0])
    async with running(broker.transport().reader("r")) as reader:
        reader.assign({TopicPartition(topic, 0): 3})
        waiting = asyncio.create_task(reader.fetch(30_000))
        await asyncio.sleep(0)
        reader.assign({TopicPartition(topic, 0): 1})
        found = await waiting
        assert [record.value for record in found[TopicPartition(topic, 0)]] == [b"1", b"2"]


@where()
async def test_what_was_fetched_before_a_new_assignment_is_not_handed_out(broker: Broker) -> None:
    at = TopicPartition(await broker.topic(), 0)
    await fill(broker, at.topic, 3, [0])
    async with running(broker.transport().reader("r")) as reader:
        reader.assign({at: 0})
        left = asyncio.create_task(reader.fetch(30_000))
        await asyncio.sleep(0)
        left.cancel()
        await asyncio.wait([left])
        with suppress(TimeoutError):  # some go on fetching when they are left
            async with asyncio.timeout(0.5):
                await until(lambda: reader.position(at) == 3)
        reader.assign({at: 1})
        assert values(await drain(reader, 2)) == {0: [b"1", b"2"]}
        reader.assign({})
        assert await reader.fetch(200) == {}


@where()
async def test_a_cancelled_fetch_loses_nothing(broker: Broker) -> None:
    topic = await broker.topic()
    found: list[bytes | None] = []
    async with (
        running(broker.transport().producer("p")) as producer,
        running(broker.transport().reader("r")) as reader,
    ):
        reader.assign({TopicPartition(topic, 0): 0})
        for number in range(30):
            left = asyncio.create_task(reader.fetch(30_000))
            sent = await producer.send(topic, b"%d" % number, partition=0)
            await asyncio.wait([left], timeout=0.001 * (number % 7))
            if not left.cancel():
                found += [record.value for batch in left.result().values() for record in batch]
            await asyncio.gather(left, return_exceptions=True)
            await sent
        while len(found) < 30:
            for batch in (await reader.fetch(10_000)).values():
                found += [record.value for record in batch]
    assert found == [b"%d" % number for number in range(30)]


@where()
@pytest.mark.parametrize("assigned", [False, True])
async def test_a_fetch_without_records_ends_at_its_timeout(broker: Broker, assigned: bool) -> None:
    topic = await broker.topic()
    async with running(broker.transport().reader("r")) as reader:
        if assigned:
            reader.assign({TopicPartition(topic, 0): 0})
        loop = asyncio.get_running_loop()
        begin = loop.time()
        async with asyncio.timeout(30):
            assert await reader.fetch(300) == {}
        assert loop.time() - begin > 0.29, "it waits: the stages do not pause between fetches"


@where()
async def test_a_fetch_with_nothing_assigned_wakes_for_an_assignment(broker: Broker) -> None:
    topic = await broker.topic()
    await fill(broker, topic, 1, [0])
    async with running(broker.transport().reader("r")) as reader:
        waiting = asyncio.create_task(reader.fetch(30_000))
        await asyncio.sleep(0)
        reader.assign({TopicPartition(topic, 0): 0})
        assert [len(batch) for batch in (await waiting).values()] == [1]


@where("transactions")
async def test_positions_pass_what_is_no_record(broker: Broker) -> None:
    at = TopicPartition(await broker.topic(), 0)
    await broker.transaction(at, [b"kept"], commit=True)
    await broker.transaction(at, [b"dropped"], commit=False)
    async with running(broker.transport().reader("r")) as reader:
        reader.assign({at: 0})
        ends = await reader.ends([at])
        assert ends == {at: 4}
        found: list[bytes | None] = []
        async with asyncio.timeout(30):
            while reader.position(at) < ends[at]:
                for batch in (await reader.fetch(100)).values():
                    found += [record.value for record in batch]
        assert found == [b"kept"]
        assert reader.position(at) == 4


@where("retention")
async def test_a_reader_passes_what_retention_has_deleted(broker: Broker) -> None:
    at = TopicPartition(await broker.topic(), 0)
    await fill(broker, at.topic, 5, [0])
    await broker.delete_before(at, 3)
    async with running(broker.transport().reader("r")) as reader:
        assert await reader.beginnings([at]) == {at: 3}
        reader.assign({at: 1})
        found: list[bytes | None] = []
        while len(found) < 2:
            assert reader.position(at) in (1, 3)
            for batch in (await reader.fetch(100)).values():
                found += [record.value for record in batch]
        assert found == [b"3", b"4"]
        assert reader.position(at) == 5


@where()
async def test_a_reader_beyond_the_end_goes_on_at_the_beginning(broker: Broker) -> None:
    """Where a log lost its tail, its offsets come again: whoever follows it has to notice."""
    at = TopicPartition(await broker.topic(), 0)
    await fill(broker, at.topic, 3, [0])
    async with running(broker.transport().reader("r")) as reader:
        reader.assign({at: 7})
        assert values(await drain(reader, 3)) == {0: [b"0", b"1", b"2"]}
        assert reader.position(at) == 3


@where("retention")
async def test_what_is_read_back_ends_where_the_log_ends(broker: Broker) -> None:
    at = TopicPartition(await broker.topic(), 0)
    await fill(broker, at.topic, 5, [0])
    await broker.delete_before(at, 3)
    async with running(broker.transport().reader("r")) as reader:
        read = [record.offset async for record in read_ranges(reader, {at: range(1, 9)})]
    assert read == [3, 4]
