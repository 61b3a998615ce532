"""The in-memory broker keeps Kafka's promises, and breaks what Kafka breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anabranch.config.settings import KafkaConfig
from anabranch.errors import BrokerError, GenerationLost, ProduceError, TopicError
from anabranch.kafka.transport import (
    CREATE_TIME,
    LOG_APPEND_TIME,
    Committed,
    GroupConsumer,
    ProducerRecord,
    Record,
    TopicPartition,
    TopicState,
)
from anabranch.testing.memory import MemoryBroker, MemoryTransport, Network
from anabranch.testing.virtual_time import EPOCH_MS, VirtualClock, run

SESSION_S = KafkaConfig().session_timeout_ms / 1000

Callback = Callable[[Collection[TopicPartition]], Coroutine[Any, Any, None]]


class Listener:
    """Notes what it is told."""

    def __init__(
        self, *, on_revoked: Callback | None = None, on_assigned: Callback | None = None
    ) -> None:
        self.told: list[tuple[str, frozenset[int]]] = []
        self._on_revoked = on_revoked
        self._on_assigned = on_assigned

    @property
    def owned(self) -> frozenset[int]:
        return next((p for what, p in reversed(self.told) if what == "assigned"), frozenset())

    async def revoked(self, partitions: Collection[TopicPartition]) -> None:
        self.told.append(("revoked", frozenset(at.partition for at in partitions)))
        if self._on_revoked is not None:
            await self._on_revoked(partitions)

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        self.told.append(("assigned", frozenset(at.partition for at in partitions)))
        if self._on_assigned is not None:
            await self._on_assigned(partitions)


def at(partition: int, topic: str = "t") -> TopicPartition:
    return TopicPartition(topic, partition)


async def member(
    transport: MemoryTransport, name: str, listener: Listener | None = None
) -> tuple[GroupConsumer, Listener]:
    listener = listener or Listener()
    consumer = transport.consumer(name, "g", ["t"], listener)
    await consumer.start()
    return consumer, listener


async def send_all(transport: MemoryTransport, partition: int, values: list[bytes]) -> None:
    producer = transport.producer("p")
    await producer.start()
    sent = [await producer.send("t", value, partition=partition) for value in values]
    await asyncio.gather(*sent)


async def drain(consumer: GroupConsumer, timeout_ms: int = 1000) -> list[Record]:
    """Everything until nothing came for `timeout_ms`."""
    records: list[Record] = []
    while found := await consumer.fetch(timeout_ms):
        for batch in found.values():
            records += batch
    return records


# ── producing and reading ──────────────────────────────────────────────────────────────────


def test_a_record_is_read_as_it_was_sent_and_stamped_by_the_brokers_clock() -> None:
    async def scenario() -> None:
        broker = MemoryBroker(clock=VirtualClock(skew_ms=5_000))
        transport = broker.transport("p1", clock=VirtualClock(skew_ms=-3_600_000))
        producer, reader = transport.producer("p"), transport.reader("r")
        acked = await (
            await producer.send("t", b"value", key=b"key", partition=2, headers=[("h", b"1")])
        )
        assert (acked.partition, acked.offset) == (2, 0)
        reader.assign({at(2): 0})
        [record] = (await reader.fetch(1000))[at(2)]
        assert (record.topic, record.partition, record.offset) == ("t", 2, 0)
        assert (record.key, record.value, record.headers) == (b"key", b"value", (("h", b"1"),))
        assert record.timestamp_type == LOG_APPEND_TIME
        assert EPOCH_MS + 5_000 <= record.timestamp < EPOCH_MS + 5_010
        assert reader.position(at(2)) == 1

    run(scenario())


def test_a_create_time_topic_keeps_the_producers_clock() -> None:
    async def scenario() -> None:
        broker = MemoryBroker()
        broker.create("t", 1, {"message.timestamp.type": "CreateTime"})
        transport = broker.transport("p1", clock=VirtualClock(skew_ms=-3_600_000))
        await send_all(transport, 0, [b"x"])
        [record] = broker.records("t")
        assert record.timestamp_type == CREATE_TIME
        assert record.timestamp == EPOCH_MS - 3_600_000

    run(scenario())


def test_a_key_goes_to_one_partition_and_keyless_records_to_all() -> None:
    async def scenario() -> None:
        broker = MemoryBroker(default_partitions=4)
        producer = broker.transport().producer("p")
        keyed = [await (await producer.send("t", b"", key=b"same")) for _ in range(8)]
        assert len({ack.partition for ack in keyed}) == 1
        keyless = [await (await producer.send("t", b"")) for _ in range(8)]
        assert {ack.partition for ack in keyless} == {0, 1, 2, 3}

    run(scenario())


def test_a_waiting_fetch_wakes_when_a_record_arrives() -> None:
    async def scenario() -> None:
        broker = MemoryBroker()
        transport = broker.transport()
        reader = transport.reader("r")
        reader.assign({at(0): 0})
        waiting = asyncio.create_task(reader.fetch(60_000))
        await asyncio.sleep(10)
        await send_all(transport, 0, [b"x"])
        found = await waiting
        assert [record.value for record in found[at(0)]] == [b"x"]
        assert asyncio.get_running_loop().time() == pytest.approx(10, abs=0.01)

    run(scenario())


def test_a_fetch_without_records_ends_at_its_timeout() -> None:
    async def scenario() -> None:
        reader = MemoryBroker().transport().reader("r")
        reader.assign({at(0): 0})
        assert await reader.fetch(250) == {}
        assert asyncio.get_running_loop().time() == pytest.approx(0.25)

    run(scenario())


def test_a_topic_that_is_missing_or_too_small_is_an_error() -> None:
    async def scenario() -> None:
        broker = MemoryBroker(default_partitions=0)
        producer = broker.transport().producer("p")
        with pytest.raises(TopicError, match="no topic"):
            await producer.send("t", b"")
        broker.create("t", 2)
        with pytest.raises(TopicError, match="no partition 2"):
            await producer.send("t", b"", partition=2)
        assert await producer.partitions("t") == 2
        assert await producer.partitions("other") == 0

    run(scenario())


def test_a_record_above_the_topics_bound_is_refused() -> None:
    async def scenario() -> None:
        broker = MemoryBroker()
        broker.create("t", 1, {"max.message.bytes": "100"})
        producer = broker.transport().producer("p")
        await producer.send_and_wait("t", b"x" * 90, headers=[("name", b"y" * 6)])
        with pytest.raises(ProduceError, match="over 100"):
            await producer.send_and_wait("t", b"x" * 90, headers=[("name", b"y" * 7)])

    run(scenario())


def test_the_admin_creates_once_and_tells_what_there_is() -> None:
    async def scenario() -> None:
        admin = MemoryBroker().transport().admin()
        await admin.create({"a": TopicState(3, {"cleanup.policy": "compact"})}, 1)
        await admin.create({"a": TopicState(7, {})}, 1)
        assert await admin.topics(["a", "b"]) == {"a": TopicState(3, {"cleanup.policy": "compact"})}

    run(scenario())


def test_what_retention_deleted_is_skipped_and_offsets_without_a_record_are_passed() -> None:
    async def scenario() -> None:
        broker = MemoryBroker()
        transport = broker.transport()
        await send_all(transport, 0, [b"0", b"1"])
        broker.log(at(0)).append_marker()
        await send_all(transport, 0, [b"3"])
        broker.log(at(0)).append_marker()
        broker.log(at(0)).delete_before(1)
        reader = transport.reader("r")
        reader.assign({at(0): 0})
        found = await reader.fetch(1000)
        assert [record.offset for record in found[at(0)]] == [1, 3]
        assert reader.position(at(0)) == 5
        assert await reader.beginnings([at(0)]) == {at(0): 1}
        assert await reader.ends([at(0)]) == {at(0): 5}

    run(scenario())


# ── groups ─────────────────────────────────────────────────────────────────────────────────


def test_a_first_join_revokes_nothing_and_assigns_everything() -> None:
    async def scenario() -> None:
        broker = MemoryBroker()
        _, listener = await member(broker.transport(), "a")
        await asyncio.sleep(1)
        assert listener.told == [("revoked", frozenset()), ("assigned", frozenset(range(4)))]

    run(scenario())


def test_a_second_member_takes_its_share_after_the_whole_old_assignment_was_revoked() -> None:
    async def scenario() -> None:
        broker = MemoryBroker()
        _, first = await member(broker.transport("1"), "a")
        _, second = await member(broker.transport("2"), "b")
        await asyncio.sleep(1)
        assert first.told[2] == ("revoked", frozenset(range(4)))
        assert first.owned | second.owned == frozenset(range(4))
        assert not first.owned & second.owned
        assert len(first.owned) == len(second.owned) == 2

    run(scenario())


def test_one_member_owns_a_partition_number_in_every_topic() -> None:
    async def scenario() -> None:
        broker = MemoryBroker()
        broker.create("t", 4)
        broker.create("u", 6)
        seen: dict[str, set[TopicPartition]] = {}
        for name in ("a", "b"):

            async def note(partitions: Collection[TopicPartition], name: str = name) -> None:
                seen[name] = set(partitions)

            listener = Listener(on_assigned=note)
            await broker.transport(name).consumer(name, "g", ["t", "u"], listener).start()
        await asyncio.sleep(1)
        assert {p.partition for p in seen["a"]} & {p.partition for p in seen["b"]} == set()
        assert len(seen["a"] | seen["b"]) == 10

    run(scenario())


def test_the_old_generation_commits_while_it_is_revoked_and_the_next_owner_starts_there() -> None:
    async def scenario() -> None:
        broker = MemoryBroker(default_partitions=1)
        transport = broker.transport("1")
        await send_all(transport, 0, [b"0", b"1", b"2"])
        commits: list[GroupConsumer] = []

        async def commit(partitions: Collection[TopicPartition]) -> None:
            if partitions:
                await commits[0].commit({at(0): Committed(2, "two")})

        first, listener = await member(transport, "b", Listener(on_revoked=commit))
        commits.append(first)
        assert [r.offset for r in await drain(first)] == [0, 1, 2]
        second, other = await member(broker.transport("2"), "a")
        await asyncio.sleep(1)
        owner = second if other.owned else first
        assert listener.owned | other.owned == {0}
        assert [r.offset for r in await drain(owner)] == [2]
        assert await owner.committed([at(0), at(1)]) == {at(0): Committed(2, "two")}

    run(scenario())


def test_no_generation_begins_before_every_member_has_joined() -> None:
    async def scenario() -> None:
        broker = MemoryBroker()
        gate = asyncio.Event()

        async def hold(partitions: Collection[TopicPartition]) -> None:
            if partitions:
                await gate.wait()

        await member(broker.transport("1"), "a", Listener(on_revoked=hold))
        joining = asyncio.create_task(member(broker.transport("2"), "b"))
        await asyncio.sleep(5)
        assert not joining.done()
        gate.set()
        await joining
        assert asyncio.get_running_loop().time() == pytest.approx(5, abs=1)

    run(scenario())


def test_a_member_that_holds_the_barrier_too_long_is_out() -> None:
    async def scenario() -> None:
        broker = MemoryBroker()
        gate = asyncio.Event()

        async def hold(partitions: Collection[TopicPartition]) -> None:
            if partitions:
                await gate.wait()

        slow, _ = await member(broker.transport("1"), "a", Listener(on_revoked=hold))
        _, second = await member(broker.transport("2"), "b")
        await asyncio.sleep(1)
        assert second.owned == frozenset(range(4))
        with pytest.raises(GenerationLost):
            await slow.commit({at(0): Committed(1, "")})
        gate.set()

    run(scenario())


def test_a_commit_of_a_past_generation_is_refused() -> None:
    async def scenario() -> None:
        broker = MemoryBroker()
        transport = broker.transport("1")
        consumer, _ = await member(transport, "a")
        broker.cut("1", SESSION_S + 1)
        await asyncio.sleep(SESSION_S + 0.5)
        _, second = await member(broker.transport("2"), "b")
        assert second.owned == frozenset(range(4))
        with pytest.raises(GenerationLost):
            await consumer.commit({at(0): Committed(1, "")})
        assert broker.committed("g") == {}

    run(scenario())


def test_a_member_that_was_cut_off_for_too_long_does_not_join_again() -> None:
    async def scenario() -> None:
        broker = MemoryBroker()
        cut_off, first = await member(broker.transport("1"), "a")
        _, second = await member(broker.transport("2"), "b")
        await asyncio.sleep(1)
        broker.cut("1", SESSION_S + 2)
        await asyncio.sleep(SESSION_S + 1)
        assert second.owned == frozenset(range(4))
        told = len(first.told)
        await asyncio.sleep(5)
        assert [what for what, _ in first.told[told:]] == ["revoked"]
        with pytest.raises(GenerationLost):
            await cut_off.fetch(0)
        assert second.owned == frozenset(range(4))

    run(scenario())


def test_metadata_above_the_brokers_bound_are_refused() -> None:
    async def scenario() -> None:
        consumer, _ = await member(MemoryBroker().transport(), "a")
        await consumer.commit({at(0): Committed(1, "x" * 4096)})
        with pytest.raises(BrokerError, match="metadata"):
            await consumer.commit({at(0): Committed(1, "x" * 4097)})

    run(scenario())


def test_a_paused_partition_keeps_its_records_until_it_is_resumed() -> None:
    async def scenario() -> None:
        broker = MemoryBroker()
        transport = broker.transport()
        consumer, _ = await member(transport, "a")
        consumer.pause([at(0)])
        await send_all(transport, 0, [b"held"])
        await send_all(transport, 1, [b"free"])
        assert [r.value for r in await drain(consumer)] == [b"free"]
        waiting = asyncio.create_task(consumer.fetch(60_000))
        await asyncio.sleep(1)
        consumer.resume([at(0)])
        assert [r.value for r in (await waiting)[at(0)]] == [b"held"]

    run(scenario())


def test_a_rebalance_forgets_pauses_and_positions() -> None:
    async def scenario() -> None:
        broker = MemoryBroker(default_partitions=2)
        transport = broker.transport("1")
        consumer, _ = await member(transport, "a")
        await send_all(transport, 0, [b"0", b"1"])
        await send_all(transport, 1, [b"0", b"1"])
        await drain(consumer)
        consumer.pause([at(0), at(1)])
        other, _ = await member(broker.transport("2"), "b")
        await asyncio.sleep(1)
        again = await drain(consumer) + await drain(other)
        assert sorted((r.partition, r.offset) for r in again) == [(0, 0), (0, 1), (1, 0), (1, 1)]

    run(scenario())


def test_records_are_handed_out_while_the_assigned_callback_waits_unless_it_paused_first() -> None:
    async def scenario(pauses: bool) -> list[Record]:
        broker = MemoryBroker(default_partitions=1)
        transport = broker.transport()
        await send_all(transport, 0, [b"x"])
        consumers: list[GroupConsumer] = []
        gate = asyncio.Event()

        async def slow(partitions: Collection[TopicPartition]) -> None:
            if pauses:
                consumers[0].pause(partitions)
            await gate.wait()

        consumers.append(transport.consumer("a", "g", ["t"], Listener(on_assigned=slow)))
        await consumers[0].start()
        return await drain(consumers[0])

    assert run(scenario(pauses=True)) == []
    assert [r.value for r in run(scenario(pauses=False))] == [b"x"]


def test_nothing_is_handed_out_between_revocation_and_assignment() -> None:
    async def scenario() -> None:
        broker = MemoryBroker(default_partitions=1)
        transport = broker.transport("1")
        gate = asyncio.Event()

        async def hold(partitions: Collection[TopicPartition]) -> None:
            if partitions:
                await gate.wait()

        consumer, _ = await member(transport, "a", Listener(on_revoked=hold))
        joining = asyncio.create_task(member(broker.transport("2"), "b"))
        await asyncio.sleep(1)
        await send_all(transport, 0, [b"x"])
        assert await consumer.fetch(1000) == {}
        gate.set()
        other, _ = await joining
        assert [r.value for r in await drain(consumer) + await drain(other)] == [b"x"]

    run(scenario())


def test_a_member_that_stops_leaves_at_once_and_hears_no_callback() -> None:
    async def scenario() -> None:
        broker = MemoryBroker()
        first, told = await member(broker.transport("1"), "a")
        _, second = await member(broker.transport("2"), "b")
        await asyncio.sleep(1)
        heard = len(told.told)
        await first.stop()
        await asyncio.sleep(1)
        assert second.owned == frozenset(range(4))
        assert len(told.told) == heard

    run(scenario())


def test_a_failing_callback_ends_the_member_with_its_error() -> None:
    async def scenario() -> None:
        async def fail(partitions: Collection[TopicPartition]) -> None:
            raise RuntimeError("in the callback")

        consumer = MemoryBroker().transport().consumer("a", "g", ["t"], Listener(on_revoked=fail))
        await consumer.start()
        for _ in range(2):
            with pytest.raises(RuntimeError, match="in the callback"):
                await consumer.fetch(1000)

    run(scenario())


def test_new_partitions_reach_the_group() -> None:
    async def scenario() -> None:
        broker = MemoryBroker(default_partitions=2)
        _, listener = await member(broker.transport(), "a")
        broker.add_partitions("t", 5)
        await asyncio.sleep(1)
        assert listener.owned == frozenset(range(5))

    run(scenario())


# ── kills and the network ──────────────────────────────────────────────────────────────────


def test_the_group_notices_a_kill_after_the_session_timeout() -> None:
    async def scenario() -> None:
        broker = MemoryBroker()
        _, first = await member(broker.transport("1"), "a")
        _, second = await member(broker.transport("2"), "b")
        await asyncio.sleep(2)
        broker.kill("1")
        heard = len(first.told)
        await asyncio.sleep(SESSION_S - 1)
        assert second.owned != frozenset(range(4))
        await asyncio.sleep(2)
        assert second.owned == frozenset(range(4))
        assert len(first.told) == heard

    run(scenario())


def test_a_killed_process_can_do_nothing_any_more_and_its_successor_can() -> None:
    async def scenario() -> None:
        broker = MemoryBroker()
        transport = broker.transport("1")
        consumer, _ = await member(transport, "a")
        producer, reader = transport.producer("p"), transport.reader("r")
        broker.kill("1")
        with pytest.raises(asyncio.CancelledError):
            await producer.send("t", b"")
        with pytest.raises(asyncio.CancelledError):
            await consumer.commit({at(0): Committed(1, "")})
        with pytest.raises(asyncio.CancelledError):
            await consumer.fetch(10)
        with pytest.raises(asyncio.CancelledError):
            reader.assign({at(0): 0})
        await send_all(broker.transport("1"), 0, [b"again"])
        assert [r.value for r in broker.records("t")] == [b"again"]
        assert broker.committed("g") == {}

    run(scenario())


def test_a_successor_of_the_same_name_waits_for_the_session_of_the_killed_one() -> None:
    async def scenario() -> None:
        broker = MemoryBroker()
        await member(broker.transport("1"), "a")
        await asyncio.sleep(1)
        broker.kill("1")
        _, listener = await member(broker.transport("1"), "a")
        await asyncio.sleep(1)
        assert listener.owned == frozenset(range(4))
        assert asyncio.get_running_loop().time() >= SESSION_S

    run(scenario())


@given(seed=st.integers(0, 2**32), flown_ms=st.integers(0, 30))
@settings(max_examples=60, deadline=None)
def test_of_what_was_on_its_way_at_a_kill_a_prefix_arrives(seed: int, flown_ms: int) -> None:
    async def scenario() -> None:
        broker = MemoryBroker(Network(latency_ms=(1, 20), seed=seed))
        producer = broker.transport("1").producer("p")
        acks = [await producer.send("t", b"%d" % n, partition=0) for n in range(10)]
        await asyncio.sleep(flown_ms / 1000)
        acked = sum(ack.done() for ack in acks)
        broker.kill("1")
        await asyncio.sleep(1)
        landed = [r.value for r in broker.records("t")]
        assert landed == [b"%d" % n for n in range(len(landed))]
        assert len(landed) >= acked
        assert sum(ack.done() for ack in acks) == acked

    run(scenario())


def test_of_a_batch_on_its_way_at_a_kill_a_part_may_arrive() -> None:
    async def scenario(seed: int) -> int:
        broker = MemoryBroker(Network(latency_ms=(1, 20), seed=seed))
        producer = broker.transport("1").producer("p")
        sent = await producer.send_batch("t", 0, [ProducerRecord(b"%d" % n) for n in range(10)])
        await asyncio.sleep(0.005)
        broker.kill("1")
        await asyncio.sleep(1)
        landed = [r.value for r in broker.records("t")]
        assert landed == [b"%d" % n for n in range(len(landed))]
        assert len(landed) == 10 or not sent.done()
        return len(landed)

    arrived = {run(scenario(seed)) for seed in range(150)}
    assert {0, 10} < arrived


@given(seed=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_delays_reorder_across_partitions_but_never_within(seed: int) -> None:
    async def scenario() -> list[tuple[int, int]]:
        network = Network(latency_ms=(0, 10), stall_rate=0.1, stall_ms=(50, 500), seed=seed)
        broker = MemoryBroker(network)
        transport = broker.transport()
        producer, reader = transport.producer("p"), transport.reader("r")
        reader.assign({at(p): 0 for p in range(4)})
        order: list[tuple[int, int]] = []
        sent = [await producer.send("t", b"%d" % n, partition=n % 4) for n in range(40)]
        while len(order) < 40:
            for partition, records in (await reader.fetch(10_000)).items():
                order += [(partition.partition, int(r.value or b"")) for r in records]
        acks = await asyncio.gather(*sent)
        assert [ack.offset for ack in acks] == [n // 4 for n in range(40)]
        for p in range(4):
            assert [n for partition, n in order if partition == p] == list(range(p, 40, 4))
        return order

    assert run(scenario()) == run(scenario()), "a seed is a schedule"


def test_some_seed_does_reorder_across_partitions() -> None:
    async def scenario(seed: int) -> list[int]:
        broker = MemoryBroker(Network(latency_ms=(0, 10), seed=seed))
        producer = broker.transport().producer("p")
        await asyncio.gather(*[await producer.send("t", b"", partition=p) for p in range(4)])
        return [record.timestamp for record in broker.records("t")]

    assert any(stamps != sorted(stamps) for stamps in (run(scenario(s)) for s in range(20)))


def test_nothing_gets_through_a_cut_until_it_ends() -> None:
    async def scenario() -> None:
        broker = MemoryBroker()
        transport = broker.transport("1")
        producer = transport.producer("p")
        broker.cut("1", 3)
        ack = await producer.send("t", b"x", partition=0)
        await asyncio.sleep(2.9)
        assert broker.records("t") == []
        await ack
        assert asyncio.get_running_loop().time() == pytest.approx(3, abs=0.01)

    run(scenario())


def test_stop_delivers_what_was_sent() -> None:
    async def scenario() -> None:
        broker = MemoryBroker(Network(latency_ms=(5, 50)))
        producer = broker.transport().producer("p")
        acks = [await producer.send("t", b"%d" % n) for n in range(20)]
        await producer.stop()
        assert all(ack.done() for ack in acks)
        assert len(broker.records("t")) == 20

    run(scenario())
