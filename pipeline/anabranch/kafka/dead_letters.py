"""Records that nobody could read: kept as they came, with the reason and the origin."""

from __future__ import annotations

from typing import Final, NamedTuple

from anabranch.kafka.topics import MAX_MESSAGE_BYTES
from anabranch.kafka.transport import Headers, Record

__all__ = ["HEADER_REASON", "HEADER_REPLAYED", "DeadLetter", "dead_letter", "original_headers"]

HEADER_REASON: Final = "anabranch-reason"
HEADER_INSTANCE: Final = "anabranch-instance"
HEADER_TOPIC: Final = "anabranch-topic"
HEADER_PARTITION: Final = "anabranch-partition"
HEADER_SOURCE_OFFSET: Final = "anabranch-source-offset"
HEADER_TIMESTAMP: Final = "anabranch-timestamp"
HEADER_TRUNCATED: Final = "anabranch-truncated-bytes"
"""Present if the value did not fit: how many bytes it had."""

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
        HEADER_TRUNCATED,
    }
)
_MAX_HEADER_BYTES: Final = 16_000


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
) -> DeadLetter:
    """A dead letter for a record as it was read, or for one that could not be sent."""
    headers: list[tuple[str, bytes]] = [
        (HEADER_REASON, reason[:1_000].encode(errors="replace")),
        (HEADER_INSTANCE, instance.encode()),
    ]
    if record is not None:
        key, value = record.key, record.value
        headers += [
            (HEADER_TOPIC, record.topic.encode()),
            (HEADER_PARTITION, b"%d" % record.partition),
            (HEADER_SOURCE_OFFSET, b"%d" % record.offset),
            (HEADER_TIMESTAMP, b"%d" % record.timestamp),
        ]
        size = sum(len(name) + len(content or b"") for name, content in record.headers)
        if size <= _MAX_HEADER_BYTES:
            headers += record.headers
    if value is not None and len(value) > MAX_MESSAGE_BYTES:
        headers.append((HEADER_TRUNCATED, b"%d" % len(value)))
        value = value[:MAX_MESSAGE_BYTES]
    return DeadLetter(value, key if key is not None or value is not None else b"", headers)


def original_headers(headers: Headers) -> Headers:
    """What the record had before it became a dead letter."""
    return [(name, value) for name, value in headers if name not in _OURS]
