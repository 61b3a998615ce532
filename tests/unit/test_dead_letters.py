"""Dead letters: read back as they came, and sent back once."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from records import FakeRecord

from anabranch.errors import DecodeError
from anabranch.events import Query, decode
from anabranch.kafka.dead_letter_box import Letter, read_letters, send_back
from anabranch.kafka.dead_letters import dead_letter, original_headers, stack_digest
from anabranch.kafka.topics import DLQ_MESSAGE_BYTES, MAX_MESSAGE_BYTES
from anabranch.kafka.transport import Record
from anabranch.testing import MemoryBroker, run

DLQ = "anabranch.dlq"
QUERY = FakeRecord(
    b'{"id": "q1"}', 5, 2, "anabranch.queries", b"k", 99, headers=(("traceparent", b"tp"),)
)


def buried(broker: MemoryBroker, *records: Record, **unsent: Any) -> None:
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


def error_of(value: bytes) -> DecodeError:
    try:
        decode(value, Query)
    except DecodeError as error:
        return error
    raise AssertionError("it is a query")


def test_letters_of_one_cause_share_a_digest_and_others_do_not() -> None:
    unreadable, too_large = error_of(b"{"), error_of(b" " * 1_000_001)
    assert stack_digest(unreadable) == stack_digest(error_of(b'{"id"'))
    assert stack_digest(unreadable) != stack_digest(too_large)
    assert len(stack_digest(too_large)) == 12


def test_the_digest_is_read_back() -> None:
    broker = MemoryBroker()
    buried(broker, value=b"x", stack="abc")
    assert letters(broker)[0].stack == "abc"


@given(
    st.integers(0, 3), st.integers(0, 2_000_000), st.sampled_from([0, 10, MAX_MESSAGE_BYTES + 5])
)
def test_whatever_was_in_a_record_a_letter_fits_and_says_what_it_lacks(
    headers: int, header_bytes: int, value_bytes: int
) -> None:
    theirs = [(f"h{n}", b"x" * header_bytes) for n in range(headers)]
    record = QUERY._replace(value=b"v" * value_bytes, headers=tuple(theirs))
    letter = dead_letter("c1", "why", record)
    size = len(letter.value or b"") + sum(len(n) + len(v) for n, v in letter.headers)
    assert size < DLQ_MESSAGE_BYTES - 1_000
    kept = list(original_headers(letter.headers))
    assert kept == theirs[: len(kept)]
    cut = len(kept) < len(theirs) or letter.value != record.value
    assert ("anabranch-truncated-bytes" in dict(letter.headers)) == cut
