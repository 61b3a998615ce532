"""Record batches byte by byte, as no client library would write them."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Sequence
from typing import Final

from aiokafka.codec import lz4_encode, snappy_encode, zstd_encode
from aiokafka.record.util import calc_crc32c, encode_varint

__all__ = ["CODECS", "batch", "record", "resealed", "varint"]

CODECS: Final = {
    "none": (0, bytes),
    "gzip": (1, gzip.compress),
    "snappy": (2, snappy_encode),
    "lz4": (3, lz4_encode),
    "zstd": (4, zstd_encode),
}
_CRC_AT: Final = 17


def varint(number: int) -> bytes:
    """Zigzag, as Kafka has it."""
    found = bytearray()
    encode_varint(number, found.append)
    return bytes(found)


def field(content: bytes | None) -> bytes:
    return varint(-1) if content is None else varint(len(content)) + content


def record(
    delta: int,
    value: bytes | None = b"value",
    key: bytes | None = None,
    headers: Sequence[tuple[bytes, bytes | None]] = (),
    *,
    count: int | None = None,
    length: int | None = None,
    tail: bytes = b"",
) -> bytes:
    """A record; `count` (of headers) and `length` may lie, `tail` is left over."""
    body = b"\x00" + varint(0) + varint(delta) + field(key) + field(value)
    body += varint(len(headers) if count is None else count)
    body += b"".join(field(name) + field(content) for name, content in headers) + tail
    return varint(len(body) if length is None else length) + body


def batch(
    records: Sequence[bytes],
    base: int = 0,
    *,
    codec: str = "none",
    attributes: int = 0,
    magic: int = 2,
    last_delta: int | None = None,
    body: bytes | None = None,
    leader_epoch: int = 0,
) -> bytes:
    """A batch with the right checksum; `body` may be anything instead of the records."""
    number, compress = CODECS[codec]
    if body is None:
        body = compress(b"".join(records))
    head = struct.pack(
        ">hiqqqhii",
        attributes | number,
        len(records) - 1 if last_delta is None else last_delta,
        1_700_000_000_000,
        1_700_000_000_000,
        -1,
        -1,
        -1,
        len(records),
    )
    length = 9 + len(head) + len(body)
    return resealed(struct.pack(">qiibI", base, length, leader_epoch, magic, 0) + head + body)


def resealed(raw: bytes) -> bytes:
    """The batch with a checksum that is right for what is in it."""
    crc = calc_crc32c(raw[_CRC_AT + 4 :])
    return raw[:_CRC_AT] + struct.pack(">I", crc) + raw[_CRC_AT + 4 :]
