"""Records that nobody could read: kept as they came, with the reason and the origin."""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Iterator
from pathlib import PurePath
from typing import Final, NamedTuple

from anabranch.contract.codec import MAX_VALUE_BYTES
from anabranch.errors import RecordRefused
from anabranch.kafka.topics import MAX_MESSAGE_BYTES
from anabranch.kafka.transport import Headers, Producer, Record

__all__ = [
    "HEADER_REASON",
    "HEADER_REPLAYED",
    "DeadLetter",
    "dead_letter",
    "original_headers",
    "our_headers",
    "send_smaller",
    "stack_digest",
]

HEADER_REASON: Final = "anabranch-reason"
HEADER_INSTANCE: Final = "anabranch-instance"
HEADER_TOPIC: Final = "anabranch-topic"
HEADER_PARTITION: Final = "anabranch-partition"
HEADER_SOURCE_OFFSET: Final = "anabranch-source-offset"
HEADER_TIMESTAMP: Final = "anabranch-timestamp"
HEADER_STACK: Final = "anabranch-stack"
"""`stack_digest` of the error, where there was one."""
HEADER_TRUNCATED: Final = "anabranch-truncated-bytes"
"""Present if key, value or headers did not fit: how many bytes they had."""

HEADER_RAW: Final = "anabranch-raw"
"""Present if the value is what could not be unpacked: bytes of the log, not of a record."""

HEADER_REPLAYED: Final = "anabranch-replayed"
"""Of a note beside dead letters: the offset of one that was sent back, in the same partition."""

_OURS: Final = frozenset(
    {
        HEADER_REASON,
        HEADER_INSTANCE,
        HEADER_TOPIC,
        HEADER_PARTITION,
        HEADER_SOURCE_OFFSET,
        HEADER_TIMESTAMP,
        HEADER_STACK,
        HEADER_TRUNCATED,
        HEADER_RAW,
        HEADER_REPLAYED,
    }
)
"""Names that a letter's readers go by: a record's own headers of these names are not kept."""
_MAX_HEADER_BYTES: Final = MAX_VALUE_BYTES // 2
_MAX_KEY_BYTES: Final = MAX_VALUE_BYTES // 4
"""With a value of `MAX_MESSAGE_BYTES` and what we add, a letter fits into `dlq`."""

_SMALLER_BYTES: Final = (900_000, 50_000, 6_000)
"""For a `dlq` that takes less than it was made for: with 1 MB, 64 kB or 8 kB."""


class DeadLetter(NamedTuple):
    """What goes to `dlq`."""

    value: bytes | None
    key: bytes | None
    headers: Headers


def dead_letter(
    instance: str,
    reason: str,
    record: Record | None = None,
    *,
    key: bytes | None = None,
    value: bytes | None = None,
    stack: str = "",
) -> DeadLetter:
    """A dead letter for a record as it was read, or for one that could not be sent.

    Args:
        reason: why; of a record that could not be unpacked it is that record's own `error`.
        stack: the error's `stack_digest`.
    """
    raw = record.error if record is not None else None
    headers: list[tuple[str, bytes]] = [
        (HEADER_REASON, (raw or reason)[:1_000].encode(errors="replace")),
        (HEADER_INSTANCE, instance.encode()),
    ]
    if stack:
        headers.append((HEADER_STACK, stack.encode()))
    if raw is not None:
        headers.append((HEADER_RAW, b"1"))
    theirs: Headers = []
    if record is not None:
        key, value, theirs = record.key, record.value, original_headers(record.headers)
        headers += [
            (HEADER_TOPIC, record.topic.encode()),
            (HEADER_PARTITION, b"%d" % record.partition),
            (HEADER_SOURCE_OFFSET, b"%d" % record.offset),
            (HEADER_TIMESTAMP, b"%d" % record.timestamp),
        ]
    whole = _size(key, value, theirs)
    key, value = key and key[:_MAX_KEY_BYTES], value and value[:MAX_MESSAGE_BYTES]
    theirs = list(_fitting(theirs))
    if _size(key, value, theirs) < whole:
        headers.append((HEADER_TRUNCATED, b"%d" % whole))
    key = b"" if key is None and value is None else key  # a compacted topic takes no other
    return DeadLetter(value, key, [*headers, *theirs])


def smaller(letter: DeadLetter) -> DeadLetter | None:
    """The same with less of the record in it; None if there is nothing left to be cut."""
    whole = _size(letter.key, letter.value, letter.headers)
    most = next((most for most in _SMALLER_BYTES if whole > most), None)
    if most is None:
        return None
    ours = [(name, value) for name, value in letter.headers if name in _OURS]
    if HEADER_TRUNCATED not in dict(ours):
        theirs = original_headers(letter.headers)
        ours.append((HEADER_TRUNCATED, b"%d" % _size(letter.key, letter.value, theirs)))
    room = max(0, most - _size(None, None, ours))
    key, value = letter.key and letter.key[: room // 4], letter.value and letter.value[: room // 2]
    return DeadLetter(value, key, ours)


def stack_digest(error: BaseException) -> str:
    """Twelve hex digits that errors of one type from one place share, causes included.

    Files and functions count, lines do not: letters keep together over releases that move code.
    """
    parts: list[str] = []
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:  # whoever raises may close the circle
        seen.add(id(cause))
        codes = [frame.f_code for frame, _ in traceback.walk_tb(cause.__traceback__)]
        places = (f"{PurePath(code.co_filename).name}:{code.co_name}" for code in codes)
        parts += [type(cause).__name__, *places]
        cause = cause.__cause__
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def original_headers(headers: Headers) -> Headers:
    """What the record had before it became a dead letter, without what it passed off as ours."""
    return [(name, value) for name, value in headers if name not in _OURS]


def our_headers(headers: Headers) -> dict[str, bytes]:
    """What we said of a record: the headers before the first that was its own.

    Letters of earlier releases hold a record's own headers under our names after ours.
    """
    ours: dict[str, bytes] = {}
    for name, value in headers:
        if name not in _OURS or name in ours:
            break
        ours[name] = value or b""
    return ours


def _size(key: bytes | None, value: bytes | None, headers: Headers) -> int:
    inside = sum(len(name.encode()) + len(content or b"") for name, content in headers)
    return len(key or b"") + len(value or b"") + inside


def _fitting(headers: Headers) -> Iterator[tuple[str, bytes]]:
    """The first of them, as far as they fit."""
    room = _MAX_HEADER_BYTES
    for name, content in headers:
        room -= _size(None, content, [(name, b"")])
        if room < 0:
            return
        yield name, content


async def send_smaller(producer: Producer, dlq: str, letter: DeadLetter) -> bool:
    """Send a letter that the broker refused again, with less and less of the record in it.

    Returns:
        False if not even our own headers are taken.

    Raises:
        ProduceError: it was not acknowledged.
    """
    less = smaller(letter)
    while less is not None:
        try:
            await (await producer.send(dlq, **less._asdict()))
        except RecordRefused:
            less = smaller(less)
        else:
            return True
    return False
