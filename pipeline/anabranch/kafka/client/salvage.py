"""A batch that the client library gave up on, read record by record.

A record that is damaged costs itself, as long as its length can be believed; header names that
are no UTF-8 cost nothing. Of what cannot be read the bytes are handed on as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from aiokafka.record.util import decode_varint

from anabranch.kafka.transport import Headers, Record, TopicPartition

__all__ = ["BatchHeader", "salvage", "unreadable"]


class BatchHeader(NamedTuple):
    """What holds for all records of a batch. `last` is its last offset."""

    at: TopicPartition
    first: int
    last: int
    first_timestamp: int
    max_timestamp: int
    timestamp_type: int
    leader_epoch: int


_LOG_APPEND_TIME: Final = 1


def salvage(header: BatchHeader, body: bytes) -> Iterator[Record]:
    """The records in `body` (uncompressed), readable or not; together they reach `header.last`."""
    pos, offset = 0, header.first
    while pos < len(body) and offset <= header.last:
        begin = pos
        try:
            length, pos = decode_varint(body, pos)
            if not 0 < length <= len(body) - pos:
                raise ValueError(f"a record of {length:,} bytes, where {len(body) - pos:,} are")
        except (ValueError, IndexError) as error:
            yield unreadable(header._replace(first=offset), body[begin:], error)
            return
        end = pos + length
        record = _record(header, offset, body[begin:end], pos - begin)
        yield record
        pos, offset = end, record.offset + 1


def unreadable(header: BatchHeader, raw: bytes, error: Exception) -> Record:
    """What stands for the offsets from `header.first` to `header.last`, at the last of them."""
    first, last = header.first, header.last
    where = f"offset {last}" if first == last else f"offsets {first} to {last}"
    return Record(
        *header.at,
        last,
        header.max_timestamp,
        header.timestamp_type,
        None,
        raw,
        (),
        f"{where} cannot be unpacked: {error or type(error).__name__}",
    )


def _record(header: BatchHeader, offset: int, raw: bytes, pos: int) -> Record:
    """The record in `raw`, whose content begins at `pos`; `offset` is the first it can have."""
    try:
        late, pos = decode_varint(raw, pos + 1)  # past its attributes, which have no meaning
        delta, pos = decode_varint(raw, pos)
        if not offset <= header.first + delta <= header.last:
            raise ValueError(f"its offset in the batch is said to be {delta}")
        offset = header.first + delta
        key, pos = _bytes(raw, pos)
        value, pos = _bytes(raw, pos)
        headers, pos = _headers(raw, pos)
        if pos != len(raw):
            raise ValueError(f"{len(raw) - pos} bytes are left over")
    except (ValueError, IndexError) as error:
        return unreadable(header._replace(first=offset, last=offset), raw, error)
    by_broker = header.timestamp_type == _LOG_APPEND_TIME
    stamp = header.max_timestamp if by_broker else header.first_timestamp + late
    return Record(
        *header.at,
        offset,
        stamp,
        header.timestamp_type,
        key,
        value,
        headers,
        leader_epoch=header.leader_epoch,
    )


def _headers(raw: bytes, pos: int) -> tuple[Headers, int]:
    count, pos = decode_varint(raw, pos)
    if not 0 <= count <= len(raw):
        raise ValueError(f"it is said to have {count} headers")
    headers = []
    for _ in range(count):
        name, pos = _bytes(raw, pos)
        if name is None:
            raise ValueError("a header has no name")
        value, pos = _bytes(raw, pos)
        headers.append((name.decode(errors="replace"), value or b""))
    return tuple(headers), pos


def _bytes(raw: bytes, pos: int) -> tuple[bytes | None, int]:
    size, pos = decode_varint(raw, pos)
    if size == -1:
        return None, pos
    if not 0 <= size <= len(raw) - pos:
        raise ValueError(f"a field of {size:,} bytes, where {len(raw) - pos:,} are")
    return raw[pos : pos + size], pos + size
