"""Compressed record batches: as large as they say they are, up to a bound.

A kilobyte may stand for gigabytes, and the client library would make them.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any, Final

import cramjam
from aiokafka.codec import snappy_decode

__all__ = ["MAX_INFLATED_BYTES", "inflate"]

MAX_INFLATED_BYTES: Final = 64 * 1024 * 1024
"""Of one batch. Producers' batches have a megabyte or less before they are compressed."""

_GZIP: Final = 1
_SNAPPY: Final = 2
_LZ4: Final = 3
_ZSTD: Final = 4
_WITH_HEADER: Final = 31  # zlib's way to say gzip
_XERIAL: Final = b"\x82SNAPPY\x00"
_XERIAL_HEADER_BYTES: Final = 16
_FIRST_BYTES: Final = 16 * 1024
_NO_ROOM: Final = "failed to write whole buffer"


def inflate(data: bytes, codec: int, most: int = MAX_INFLATED_BYTES) -> bytes:
    """What a batch's records are, uncompressed.

    Raises:
        ValueError: there is no such codec, the data is broken, or it has more than `most` bytes.
    """
    try:
        if codec == _GZIP:
            return _gunzip(data, most)
        if codec == _SNAPPY:
            return _unsnappy(data, most)
        if codec in (_LZ4, _ZSTD):
            return _grown(cramjam.lz4 if codec == _LZ4 else cramjam.zstd, data, most)
    except (EOFError, zlib.error, cramjam.DecompressionError) as error:
        raise ValueError(f"its compressed records are broken ({error})") from error
    raise ValueError(f"there is no compression codec {codec}")


def _gunzip(data: bytes, most: int) -> bytes:
    found = b""
    while data:
        member = zlib.decompressobj(_WITH_HEADER)
        found += member.decompress(data, most + 1 - len(found))
        if len(found) > most:
            raise _too_large(most)
        if not member.eof:
            raise EOFError("it ends early")
        data = member.unused_data
    return found


def _unsnappy(data: bytes, most: int) -> bytes:
    if sum(map(cramjam.snappy.decompress_raw_len, _blocks(data))) > most:
        raise _too_large(most)
    return bytes(snappy_decode(data))


def _blocks(data: bytes) -> Iterator[bytes]:
    """Raw snappy, or the blocks of what the Java client writes."""
    if not data.startswith(_XERIAL):
        yield data
        return
    at = _XERIAL_HEADER_BYTES
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            raise EOFError("it ends early")
        yield data[at + 4 : end]
        at = end


def _grown(codec: Any, data: bytes, most: int) -> bytes:
    """Into a buffer that grows: how much it will be is not known before."""
    room = min(max(_FIRST_BYTES, 8 * len(data)), most)
    while True:
        buffer = bytearray(room)
        try:
            return bytes(memoryview(buffer)[: codec.decompress_into(data, buffer)])
        except cramjam.DecompressionError as error:
            if _NO_ROOM not in str(error):
                raise
        if room == most:
            raise _too_large(most)
        room = min(8 * room, most)


def _too_large(most: int) -> ValueError:
    return ValueError(f"uncompressed it would have over {most:,} bytes")
