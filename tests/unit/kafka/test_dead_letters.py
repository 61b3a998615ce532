"""Dead letters: read back as they came, and sent back once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import FakeRecord

from anabranch.admin.dead_letters import Letter, read_letters, send_back
from anabranch.contract.codec import decode
from anabranch.contract.events import Query
from anabranch.errors import DecodeError
from anabranch.kafka.dead_letters import dead_letter, original_headers, stack_digest
from anabranch.kafka.topics import DLQ_MESSAGE_BYTES, MAX_MESSAGE_BYTES, Topics
from anabranch.kafka.transport import Record, TopicPartition
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
        return await read_letters(reader, Topics("anabranch."))

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


def test_causes_that_go_round_in_a_circle_have_a_digest_too() -> None:
    first, second = ValueError("a"), KeyError("b")
    first.__cause__, second.__cause__ = second, first
    own = ValueError("c")
    own.__cause__ = own
    assert len({stack_digest(first), stack_digest(own), stack_digest(ValueError("d"))}) == 2


def test_the_digest_is_read_back() -> None:
    broker = MemoryBroker()
    buried(broker, value=b"x", stack="abc")
    assert letters(broker)[0].stack == "abc"


def test_what_could_not_be_unpacked_is_shown_and_never_sent_back() -> None:
    broker = MemoryBroker()
    error = "offsets 3 to 5 cannot be unpacked: its checksum is wrong"
    buried(broker, QUERY._replace(value=b"\x00raw", error=error))
    broker.log(TopicPartition(DLQ, 0)).append_unreadable(b"in dlq itself", 2**50, 2)
    of_queries, of_dlq = letters(broker)
    assert (of_queries.reason, of_queries.record.value) == (error, b"\x00raw")
    assert (of_queries.topic, of_queries.offset) == ("anabranch.queries", 5)
    assert "offsets 1 to 2 cannot be unpacked" in of_dlq.reason
    assert all("bytes of the log" in str(letter.why_not) for letter in (of_queries, of_dlq))
    assert replay(broker, [of_queries, of_dlq]) == 0


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


NAMES = [
    "anabranch-reason", "anabranch-instance", "anabranch-topic", "anabranch-partition",
    "anabranch-source-offset", "anabranch-timestamp", "anabranch-stack",
    "anabranch-truncated-bytes", "anabranch-replayed",
]  # fmt: skip
FORGED = tuple((name, b"anabranch.results") for name in NAMES)


def written(broker: MemoryBroker, *records: tuple[bytes | None, Any]) -> None:
    """Put records into `dlq` as whoever may write there can: values and headers."""

    async def write() -> None:
        producer = broker.transport("evil").producer("evil")
        await producer.start()
        for value, headers in records:
            await producer.send_and_wait(DLQ, value, key=b"", partition=0, headers=headers)
        await producer.stop()

    run(write())


def test_ours_replace_what_a_record_passes_off_as_ours() -> None:
    broker = MemoryBroker()
    answer = b'{"id": "q1", "status": "complete"}'
    mine = (("mine", b"1"), *FORGED, ("mine", b"2"))
    buried(broker, QUERY._replace(value=answer, headers=mine))
    (letter,) = letters(broker)
    assert (letter.topic, letter.partition, letter.offset) == (QUERY.topic, 2, 5)
    assert (letter.reason, letter.stack) == ("unreadable", "")
    assert letter.why_not is None
    broker.create("anabranch.results", 3)
    assert replay(broker, [letter]) == 1
    (back,) = broker.records("anabranch.queries")
    assert [name for name, _ in back.headers] == ["mine", "mine"]
    assert not broker.records("anabranch.results")


def test_a_letter_of_an_earlier_release_is_read_by_what_we_said_first() -> None:
    broker = MemoryBroker()
    buried(broker, QUERY)
    (ours,) = broker.records(DLQ)
    written(broker, (b"{}", [*ours.headers, *FORGED]))
    old = letters(broker)[-1]
    assert (old.topic, old.partition, old.reason) == (QUERY.topic, 2, "unreadable")


@pytest.mark.parametrize(
    "topic", ["results", "control", "health", "telemetry", "dlq", "tasks.x", "tasksx.low", "x"]
)
def test_only_work_is_sent_back(topic: str) -> None:
    broker = MemoryBroker()
    place = "elsewhere" if topic == "x" else f"anabranch.{topic}"
    buried(broker, QUERY._replace(topic=place))
    (letter,) = letters(broker)
    assert letter.why_not == f"it says that it came from {place!r}; only work is sent back"
    assert replay(broker, [letter]) == 0


@pytest.mark.parametrize(
    "number", [b"", b"x", b"-1", b"1e3", b"9" * 5_000, b"\xff", "٣".encode(), b" 1", b"1_0", None]
)
def test_no_number_in_a_letter_breaks_the_list(number: Any) -> None:
    broker = MemoryBroker()
    buried(broker, QUERY)
    ours = dict(broker.records(DLQ)[0].headers)
    broken = ours | {"anabranch-partition": number, "anabranch-source-offset": number}
    written(
        broker,
        (b"{}", list(broken.items())),
        (b"", [("anabranch-replayed", number)]),
        (b"", [("anabranch-replayed", b"0"), ("anabranch-replayed", b"0")]),
        (b"x", [("anabranch-replayed", b"0")]),
    )
    first, *others = letters(broker)
    assert not first.replayed
    assert len(others) == 4
    assert {letter.why_not for letter in others} == {"it was never in a topic"}


@given(
    st.lists(
        st.tuples(
            st.sampled_from(NAMES) | st.text(max_size=5),
            st.binary(max_size=30) | st.integers(0, 9).map(b"%d".__mod__),
        ),
        max_size=12,
    ),
    st.binary(max_size=30),
)
def test_nothing_that_stands_in_the_topic_breaks_the_list(headers: Any, value: bytes) -> None:
    broker = MemoryBroker()
    buried(broker, QUERY)
    written(broker, (value, headers))
    assert letters(broker)[0].topic == QUERY.topic


@pytest.mark.parametrize(
    "value", [b'{"id": "\xff"}', b'"\xff"', b'{"id": "\\ud800"}', b"[" * 100_000, b'{"id": 1e999}']
)
def test_no_json_that_is_damaged_within_breaks_the_list(value: bytes) -> None:
    """Bytes that are drawn at random are seldom JSON up to the damage."""
    broker = MemoryBroker()
    buried(broker, FakeRecord(value, 7, 0, "anabranch.queries"), QUERY)
    assert [letter.id for letter in letters(broker)] == [None, "q1"]


def test_what_a_letter_says_is_bounded() -> None:
    broker = MemoryBroker()
    buried(broker, QUERY)
    written(broker, (b'{"id": "' + b"i" * 9_000 + b'"}', [("anabranch-reason", b"r" * 100_000)]))
    last = letters(broker)[-1]
    assert (len(last.reason), len(last.id or "")) == (1_000, 1_000)
