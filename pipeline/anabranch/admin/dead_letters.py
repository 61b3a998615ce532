"""Reading dead letters, and sending them back to where they came from.

A replay leaves a note in `dlq` itself, in the letter's partition: it lives as long as the letter
does, and whoever replays later sees it. The note follows the acknowledged copy, so a crash in
between may send a letter twice, and never loses one; a query's id makes that harmless while the
coordinator remembers it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final

import msgspec
from msgspec import Struct

from anabranch.kafka.dead_letters import (
    HEADER_INSTANCE,
    HEADER_PARTITION,
    HEADER_RAW,
    HEADER_REASON,
    HEADER_REPLAYED,
    HEADER_SOURCE_OFFSET,
    HEADER_STACK,
    HEADER_TOPIC,
    HEADER_TRUNCATED,
    original_headers,
    our_headers,
)
from anabranch.kafka.ranges import read_ranges
from anabranch.kafka.topics import Topics, require_topics
from anabranch.kafka.transport import Producer, Reader, Record, TopicPartition

__all__ = ["Letter", "read_letters", "send_back"]

_MAX_TEXT_CHARS: Final = 1_000
_MAX_DIGITS: Final = 19
"""What Kafka counts in has no more."""


class Letter(Struct, frozen=True):
    """A dead letter and what became of it. `place` is `partition:offset` in `dlq`."""

    place: str
    time_ms: int
    reason: str
    stack: str
    """Letters with the same digest have the same cause; empty if no error led here."""
    instance: str
    topic: str | None
    """Where it came from; None for what could not be sent, which cannot be replayed."""
    partition: int | None
    offset: int | None
    id: str | None
    """The event's, if it can be read."""
    replayed: bool
    truncated: bool
    raw: bool
    """Its value is what could not be unpacked."""
    is_work: bool
    """Whether it came from a topic whose records are worked off (`Topics.is_work`)."""
    record: Record

    @property
    def why_not(self) -> str | None:
        """Why it cannot be replayed, or None if it can."""
        if self.raw:
            return "it could not be unpacked: these are bytes of the log"
        if self.topic is None or self.partition is None:
            return "it was never in a topic"
        if not self.is_work:
            return f"it says that it came from {self.topic!r}; only work is sent back"
        if self.truncated:
            return "it was cut to fit"
        return "it was replayed before" if self.replayed else None


async def read_letters(reader: Reader, topics: Topics) -> list[Letter]:
    """All dead letters that the broker has now, oldest first.

    Nothing in a letter is trusted: a record that nobody made as a letter is one without origin.

    Raises:
        TopicError: there is no such topic.
        BrokerError: the broker cannot be read.
    """
    records = await _read_all(reader, topics.dlq)
    notes = {(record.partition, record.offset): _noted(record) for record in records}
    replayed = {(partition, noted) for (partition, _), noted in notes.items() if noted is not None}
    return [
        _letter(record, topics, replayed=(record.partition, record.offset) in replayed)
        for record in sorted(records, key=lambda r: (r.timestamp, r.partition, r.offset))
        if notes[record.partition, record.offset] is None
    ]


async def send_back(producer: Producer, dlq: str, letters: Iterable[Letter]) -> Sequence[Letter]:
    """Send letters to the partitions they came from, each with a note; those that were sent.

    Raises:
        TopicError: a letter's topic or partition is gone; those before it were sent.
        ProduceError: a record was not acknowledged.
    """
    sent = []
    for letter in letters:
        if letter.topic is None or letter.why_not is not None:
            continue
        record = letter.record
        await producer.send_and_wait(
            letter.topic,
            record.value,
            key=record.key,
            partition=letter.partition,
            headers=original_headers(record.headers),
        )
        note = [(HEADER_REPLAYED, b"%d" % record.offset)]
        await producer.send_and_wait(dlq, b"", key=b"", partition=record.partition, headers=note)
        sent.append(letter)
    return sent


async def _read_all(reader: Reader, topic: str) -> list[Record]:
    await require_topics(reader, [topic])
    partitions = [TopicPartition(topic, n) for n in range(await reader.partitions(topic))]
    beginnings, ends = await reader.beginnings(partitions), await reader.ends(partitions)
    whole = {tp: range(beginnings[tp], ends[tp]) for tp in partitions}
    return [record async for record in read_ranges(reader, whole)]


def _noted(record: Record) -> int | None:
    """The offset of the letter that a note is about; None if it is no note as we write them."""
    if record.value or [name for name, _ in record.headers] != [HEADER_REPLAYED]:
        return None
    return _number(our_headers(record.headers), HEADER_REPLAYED)


def _letter(record: Record, topics: Topics, *, replayed: bool) -> Letter:
    headers = our_headers(record.headers)
    topic = _text(headers, HEADER_TOPIC)
    return Letter(
        place=f"{record.partition}:{record.offset}",
        time_ms=record.timestamp,
        reason=record.error or _text(headers, HEADER_REASON) or "",
        stack=_text(headers, HEADER_STACK) or "",
        instance=_text(headers, HEADER_INSTANCE) or "",
        topic=topic,
        partition=_number(headers, HEADER_PARTITION),
        offset=_number(headers, HEADER_SOURCE_OFFSET),
        id=_id(record.value),
        replayed=replayed,
        truncated=HEADER_TRUNCATED in headers,
        raw=HEADER_RAW in headers or record.error is not None,
        is_work=topic is not None and topics.is_work(topic),
        record=record,
    )


def _text(headers: Mapping[str, bytes], name: str) -> str | None:
    value = headers.get(name)
    return None if value is None else value.decode(errors="replace")[:_MAX_TEXT_CHARS]


def _number(headers: Mapping[str, bytes], name: str) -> int | None:
    value = headers.get(name, b"")
    return int(value) if value.isdigit() and len(value) < _MAX_DIGITS else None


def _id(value: bytes | None) -> str | None:
    """A query's or answer's `id`, a task's or partial's `query`."""
    with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        event = msgspec.json.decode(value or b"")
        if isinstance(event, dict):
            found = event.get("id", event.get("query"))
            return found[:_MAX_TEXT_CHARS] if isinstance(found, str) else None
    return None
