"""The transport contract: what a member of a group sees of its group, on every implementation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import pytest
from transports import PARTITIONS, Broker, Listener, drain, fill, fresh, running, values, where

from anabranch.errors import BrokerError, GenerationLost
from anabranch.kafka.transport import Committed, GroupConsumer, TopicPartition
from anabranch.runtime.supervisor import until

METADATA = "x" * 3_000


def whole(topic: str) -> frozenset[TopicPartition]:
    return frozenset(TopicPartition(topic, number) for number in range(PARTITIONS))


@asynccontextmanager
async def member(
    broker: Broker, group: str, topic: str, listener: Listener | None = None, name: str = "one"
) -> AsyncIterator[GroupConsumer]:
    """A member of a group, in a process of its own."""
    transport = broker.transport(name)
    async with running(transport.consumer(name, group, [topic], listener or Listener())) as one:
        yield one


# ── one member ─────────────────────────────────────────────────────────────────────────────


@where()
async def test_the_first_member_is_assigned_everything_in_one_call(broker: Broker) -> None:
    topic, listener = await broker.topic(), Listener()
    async with member(broker, fresh("group"), topic, listener):
        await listener.hears("assigned")
        assert listener.told == [("revoked", frozenset()), ("assigned", whole(topic))]


@where()
async def test_what_is_committed_is_read_back_with_its_metadata(broker: Broker) -> None:
    topic = await broker.topic()
    first, second, third = (TopicPartition(topic, number) for number in range(3))
    offsets = {first: Committed(7, METADATA), second: Committed(0, "")}
    async with member(broker, fresh("group"), topic) as one:
        assert await one.committed([first]) == {}
        await one.commit(offsets)
        assert await one.committed([first, second, third]) == offsets
        await one.commit({first: Committed(5, "back")})
        assert await one.committed([first]) == {first: Committed(5, "back")}


@where("metadata_bound")
async def test_metadata_that_are_too_long_are_refused_and_the_member_goes_on(
    broker: Broker,
) -> None:
    topic = await broker.topic()
    at = TopicPartition(topic, 0)
    async with member(broker, fresh("group"), topic) as one:
        with pytest.raises(BrokerError) as refused:
            await one.commit({at: Committed(1, "x" * 5_000)})
        assert not isinstance(refused.value, GenerationLost)
        await one.commit({at: Committed(1, "short")})
        assert await one.committed([at]) == {at: Committed(1, "short")}


@where()
async def test_a_new_member_starts_at_what_is_committed_or_else_at_the_beginning(
    broker: Broker,
) -> None:
    topic, group = await broker.topic(), fresh("group")
    await fill(broker, topic, 3, [0, 1])
    async with member(broker, group, topic) as one:
        assert values(await drain(one, 6)) == {0: [b"0", b"1", b"2"], 1: [b"0", b"1", b"2"]}
        await one.commit({TopicPartition(topic, 0): Committed(2, "")})
    async with member(broker, group, topic) as next_one:
        assert values(await drain(next_one, 4)) == {0: [b"2"], 1: [b"0", b"1", b"2"]}


@where("topics_on_first_use")
async def test_a_member_may_start_before_its_topic_is_used(broker: Broker) -> None:
    topic = fresh("first")
    async with member(broker, fresh("group"), topic) as one:
        await fill(broker, topic, 1)
        assert values(await drain(one, PARTITIONS)) == {n: [b"0"] for n in range(PARTITIONS)}


@where()
async def test_stopping_commits_nothing(broker: Broker) -> None:
    topic, group = await broker.topic(), fresh("group")
    await fill(broker, topic, 2, [0])
    for _ in range(2):
        async with member(broker, group, topic) as one:
            assert values(await drain(one, 2)) == {0: [b"0", b"1"]}
            assert await one.committed([TopicPartition(topic, 0)]) == {}


@where()
async def test_seeking_reads_from_there(broker: Broker) -> None:
    topic = await broker.topic()
    await fill(broker, topic, 4, [0])
    async with member(broker, fresh("group"), topic) as one:
        assert values(await drain(one, 4)) == {0: [b"0", b"1", b"2", b"3"]}
        one.seek(TopicPartition(topic, 0), 2)
        assert values(await drain(one, 2)) == {0: [b"2", b"3"]}


@where()
async def test_a_paused_partition_rests_and_goes_on_where_it_was(broker: Broker) -> None:
    topic = await broker.topic()
    paused = [TopicPartition(topic, 0)]
    async with member(broker, fresh("group"), topic) as one:
        await fill(broker, topic, 1)
        await drain(one, PARTITIONS)
        one.pause(paused)
        await fill(broker, topic, 1)
        assert set(await drain(one)) == set(range(1, PARTITIONS))
        one.resume(paused)
        assert [record.offset for record in (await drain(one, 1))[0]] == [1]


@where()
async def test_partitions_that_are_not_ours_are_left_alone(broker: Broker) -> None:
    topic = await broker.topic()
    foreign = TopicPartition(topic, PARTITIONS + 1)
    await fill(broker, topic, 1, [0])
    async with member(broker, fresh("group"), topic) as one:
        one.pause([foreign])
        one.resume([foreign])
        one.seek(foreign, 3)
        assert values(await drain(one, 1)) == {0: [b"0"]}


@where()
async def test_what_the_assigned_callback_pauses_and_seeks_holds_from_the_first_record(
    broker: Broker,
) -> None:
    topic = await broker.topic()
    await fill(broker, topic, 3, [0])
    consumers: list[GroupConsumer] = []

    async def hold(partitions: Collection[TopicPartition]) -> None:
        consumers[0].pause(partitions)
        consumers[0].seek(TopicPartition(topic, 0), 2)

    transport = broker.transport()
    one = transport.consumer("one", fresh("group"), [topic], Listener(on_assigned=hold))
    consumers.append(one)
    async with running(one):
        assert await drain(one) == {}
        one.resume(whole(topic))
        assert values(await drain(one, 1)) == {0: [b"2"]}


@where()
async def test_a_fetch_without_records_ends_at_its_timeout(broker: Broker) -> None:
    topic = await broker.topic()
    async with member(broker, fresh("group"), topic) as one:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        async with asyncio.timeout(30):
            assert await one.fetch(300) == {}
        assert loop.time() - begin > 0.29, "it waits: the stages do not pause between fetches"


class ListenerError(Exception):
    """What a listener raises."""


@where()
async def test_a_listener_that_fails_ends_fetch_with_its_error(broker: Broker) -> None:
    topic = await broker.topic()

    async def fail(partitions: Collection[TopicPartition]) -> None:
        raise ListenerError

    async with member(broker, fresh("group"), topic, Listener(on_assigned=fail)) as one:
        with pytest.raises(ListenerError):
            await drain(one, 1)
        with pytest.raises(ListenerError):
            await one.fetch(0)


@where()
async def test_a_consumer_that_does_not_run_refuses_to_commit(broker: Broker) -> None:
    topic = await broker.topic()
    one = broker.transport().consumer("one", fresh("group"), [topic], Listener())
    offsets = {TopicPartition(topic, 0): Committed(1, "")}
    with pytest.raises(BrokerError):
        await one.commit(offsets)
    await one.start()
    await one.stop()
    with pytest.raises(BrokerError):
        await one.commit(offsets)


# ── several members ────────────────────────────────────────────────────────────────────────


@where("several_members")
async def test_two_members_share_and_a_leaver_hands_over(broker: Broker) -> None:
    topic, group = await broker.topic(), fresh("group")
    ones, twos = Listener(), Listener()
    half = PARTITIONS // 2
    async with member(broker, group, topic, ones, "one") as one:
        await ones.owns(PARTITIONS)
        async with member(broker, group, topic, twos, "two"), fetching(one):
            await asyncio.gather(ones.owns(half), twos.owns(half))
            assert ones.owned | twos.owned == whole(topic)
            shared = ones.owned
        await ones.owns(PARTITIONS)
    assert ones.told == [
        ("revoked", frozenset()),
        ("assigned", whole(topic)),
        ("revoked", whole(topic)),
        ("assigned", shared),
        ("revoked", shared),
        ("assigned", whole(topic)),
    ], "every call has a whole assignment; stopping makes none"


@where("several_members")
async def test_who_comes_back_gets_what_it_had(broker: Broker) -> None:
    topic, group = await broker.topic(), fresh("group")
    had: list[frozenset[TopicPartition]] = []
    async with member(broker, group, topic, Listener(), "one"):
        for _ in range(4):
            twos = Listener()
            async with member(broker, group, topic, twos, "two"):
                await twos.owns(PARTITIONS // 2)
                had.append(twos.owned)
    assert len(set(had)) == 1, "an assignment is a function of names"


@where("several_members")
async def test_a_partitions_number_has_one_owner_over_all_topics(broker: Broker) -> None:
    topics, group = [await broker.topic(), await broker.topic()], fresh("group")
    listeners = [Listener(), Listener(), Listener()]
    consumers = [
        broker.transport(f"c{n}").consumer(f"c{n}", group, topics, listener)
        for n, listener in enumerate(listeners)
    ]
    async with running(consumers[0]), running(consumers[1]), running(consumers[2]):
        await until(lambda: sum(len(each.owned) for each in listeners) == 2 * PARTITIONS)
        for listener in listeners:
            numbers = [{at.partition for at in listener.owned if at.topic == t} for t in topics]
            assert numbers[0] == numbers[1]
            assert len(numbers[0]) in (PARTITIONS // 3, PARTITIONS // 3 + 1)


@where("several_members")
async def test_a_rebalance_undoes_pauses_and_goes_back_to_what_is_committed(
    broker: Broker,
) -> None:
    topic, group = await broker.topic(), fresh("group")
    await fill(broker, topic, 3)
    ones, twos = Listener(), Listener()
    async with member(broker, group, topic, ones, "one") as one:
        await drain(one, 3 * PARTITIONS)
        await one.commit({at: Committed(1, "") for at in whole(topic)})
        one.pause(whole(topic))
        async with member(broker, group, topic, twos, "two"):
            await ones.owns(PARTITIONS // 2)
            found = values(await drain(one, 2 * len(ones.owned)))
            assert found == {at.partition: [b"1", b"2"] for at in ones.owned}


@where("several_members")
async def test_nothing_that_was_fetched_before_a_rebalance_comes_after_it(broker: Broker) -> None:
    topic, group = await broker.topic(), fresh("group")
    await fill(broker, topic, 3)
    consumers: list[GroupConsumer] = []

    async def skip(partitions: Collection[TopicPartition]) -> None:
        for at in partitions:
            consumers[0].seek(at, 2)

    ones, twos = Listener(on_assigned=skip), Listener()
    consumers.append(broker.transport("one").consumer("one", group, [topic], ones))
    async with running(consumers[0]):
        await ones.hears("assigned")
        for at in ones.owned:
            consumers[0].seek(at, 0)
        left = asyncio.create_task(consumers[0].fetch(30_000))
        await asyncio.sleep(0)
        left.cancel()
        await asyncio.wait([left])
        async with member(broker, group, topic, twos, "two"):
            await ones.hears("assigned", times=2)
            found = values(await drain(consumers[0], len(ones.owned)))
            assert found == {at.partition: [b"2"] for at in ones.owned}


@where("several_members")
async def test_the_revoked_callback_may_still_commit(broker: Broker) -> None:
    topic, group = await broker.topic(), fresh("group")
    consumers: list[GroupConsumer] = []

    async def commit(partitions: Collection[TopicPartition]) -> None:
        if partitions:
            await consumers[0].commit({at: Committed(9, "last") for at in partitions})

    ones, twos = Listener(on_revoked=commit), Listener()
    consumers.append(broker.transport("one").consumer("one", group, [topic], ones))
    async with running(consumers[0]), member(broker, group, topic, twos, "two") as two:
        await twos.owns(PARTITIONS // 2)
        assert await two.committed(whole(topic)) == dict.fromkeys(
            whole(topic), Committed(9, "last")
        )
        await consumers[0].fetch(0)


@where("several_members")
async def test_who_is_out_of_the_group_cannot_commit(broker: Broker) -> None:
    topic, group = await broker.topic(), fresh("group")
    consumers: list[GroupConsumer] = []
    outcome: list[BaseException | None] = []
    ones, twos = Listener(), Listener()

    async def dawdle(partitions: Collection[TopicPartition]) -> None:
        if not partitions or outcome:
            return
        await twos.owns(PARTITIONS)  # the rebalance timeout has put us out
        try:
            await consumers[0].commit({at: Committed(9, "late") for at in partitions})
            outcome.append(None)
        except BrokerError as error:
            outcome.append(error)

    ones = Listener(on_revoked=dawdle)
    consumers.append(broker.transport("one").consumer("one", group, [topic], ones))
    async with running(consumers[0]), member(broker, group, topic, twos, "two") as two:
        with pytest.raises(GenerationLost):  # and does not come back as somebody else
            await drain(consumers[0], 1)
        assert isinstance(outcome[0], GenerationLost)
        assert await two.committed(whole(topic)) == {}


@where()
async def test_a_member_can_prove_that_it_is_one(broker: Broker) -> None:
    topic = await broker.topic()
    consumer = broker.transport().consumer("one", fresh("group"), [topic], Listener())
    async with running(consumer):
        await consumer.prove()
    with pytest.raises(BrokerError):
        await consumer.prove()


@where("several_members")
async def test_a_listener_that_fails_to_let_go_ends_fetch_with_its_error(broker: Broker) -> None:
    topic, group = await broker.topic(), fresh("group")

    async def fail(partitions: Collection[TopicPartition]) -> None:
        if partitions:
            raise ListenerError

    ones = Listener(on_revoked=fail)
    async with member(broker, group, topic, ones, "one") as one:
        joining = broker.transport("two").consumer("two", group, [topic], Listener())
        starting = asyncio.create_task(joining.start())
        with pytest.raises(ListenerError):
            await drain(one, 1)
        await one.stop()
        await starting
        await joining.stop()


@where("several_members")
async def test_stopping_waits_for_a_callback_that_runs(broker: Broker) -> None:
    topic, group = await broker.topic(), fresh("group")
    may_end, ended = asyncio.Event(), asyncio.Event()

    async def linger(partitions: Collection[TopicPartition]) -> None:
        if partitions:
            await may_end.wait()
            ended.set()

    ones = Listener(on_revoked=linger)
    async with member(broker, group, topic, ones, "one") as one:
        joining = broker.transport("two").consumer("two", group, [topic], Listener())
        starting = asyncio.create_task(joining.start())
        await ones.hears("revoked", times=2)
        stopping = asyncio.create_task(one.stop())
        await asyncio.sleep(0)
        may_end.set()
        async with asyncio.timeout(30):
            await stopping
            assert ended.is_set()
            await starting
        await joining.stop()


@asynccontextmanager
async def fetching(consumer: GroupConsumer) -> AsyncIterator[None]:
    """Fetch all the while, as a stage does."""

    async def loop() -> None:
        while True:
            await consumer.fetch(50)

    task = asyncio.create_task(loop())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
