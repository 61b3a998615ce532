"""Dead letters: read back as they came, and sent back once."""

from __future__ import annotations

from records import FakeRecord

from anabranch.kafka.dead_letter_box import Letter, read_letters, send_back
from anabranch.kafka.dead_letters import dead_letter
from anabranch.kafka.transport import Record
from anabranch.testing import MemoryBroker, run

DLQ = "anabranch.dlq"
QUERY = FakeRecord(
    b'{"id": "q1"}', 5, 2, "anabranch.queries", b"k", 99, headers=(("traceparent", b"tp"),)
)


def buried(broker: MemoryBroker, *records: Record, **unsent: bytes) -> None:
    """Fill `dlq` as instances do."""

    async def bury() -> None:
        producer = broker.transport("c1").producer("c1")
        await producer.start()
        letters = [dead_letter("c1", "unreadable", record) for record in records]
        letters += [dead_letter("c1", "unsent", **unsent)] if unsent else []
        for letter in letters:
            await producer.send_and_wait(DLQ, partition=0, **letter._asdict())
        await producer.stop()

    broker.create(DLQ, 1)
    broker.create("anabranch.queries", 3)
    run(bury())


def letters(broker: MemoryBroker) -> list[Letter]:
    async def read() -> list[Letter]:
        reader = broker.transport("cli").reader("cli")
        await reader.start()
        return await read_letters(reader, DLQ)

    return run(read())


def replay(broker: MemoryBroker, chosen: list[Letter]) -> int:
    async def send() -> int:
        producer = broker.transport("cli").producer("cli")
        await producer.start()
        return len(await send_back(producer, DLQ, chosen))

    return run(send())


def test_a_letter_says_where_it_came_from_and_why() -> None:
    broker = MemoryBroker()
    buried(broker, QUERY, FakeRecord(b"\xff", 6, 0, "anabranch.partials"))
    first, second = letters(broker)
    assert (first.place, first.topic, first.partition, first.offset) == ("0:0", QUERY.topic, 2, 5)
    assert (first.id, first.reason, first.instance) == ("q1", "unreadable", "c1")
    assert (first.record.key, first.record.value) == (QUERY.key, QUERY.value)
    assert second.id is None
    assert second.why_not is None


def test_a_replay_sends_key_value_and_headers_back_without_ours() -> None:
    broker = MemoryBroker()
    buried(broker, QUERY)
    assert replay(broker, letters(broker)) == 1
    (back,) = broker.records("anabranch.queries")
    assert (back.partition, back.key, back.value) == (QUERY.partition, QUERY.key, QUERY.value)
    assert tuple(back.headers) == QUERY.headers


def test_what_was_replayed_is_noted_and_not_sent_again() -> None:
    broker = MemoryBroker()
    buried(broker, QUERY, QUERY._replace(offset=6))
    assert replay(broker, letters(broker)[:1]) == 1
    assert [letter.replayed for letter in letters(broker)] == [True, False]
    assert replay(broker, letters(broker)) == 1
    assert replay(broker, letters(broker)) == 0
    assert len(broker.records("anabranch.queries")) == 2


def test_what_was_never_in_a_topic_stays() -> None:
    broker = MemoryBroker()
    buried(broker, key=b"q", value=b'{"id": "q"}')
    (letter,) = letters(broker)
    assert (letter.id, letter.why_not) == ("q", "it was never in a topic")
    assert replay(broker, [letter]) == 0
