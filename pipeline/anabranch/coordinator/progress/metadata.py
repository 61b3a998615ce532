"""Progress in a commit's metadata: 4,096 characters at most."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final
from zlib import crc32

from anabranch.coordinator.progress.window import Bounds, Mark, Progress

__all__ = ["MAX_METADATA_BYTES", "decode", "encode"]

MAX_METADATA_BYTES: Final = 4_096
"""Kafka's `offset.metadata.max.bytes`, where nobody raised it."""

_VERSION: Final = "2"
_NUMBERS: Final = {"1": 6, "2": 10}
"""How many numbers precede the offsets, by version: those of the last release are still read."""
_MAX_PAYLOAD: Final = (MAX_METADATA_BYTES - len(_VERSION)) * 3 // 4 - 3
_MAX_NUMBER: Final = 2**63 - 1
_MAX_COMPLETED: Final = 2**21
"""Offsets past the watermark, in runs: more would be a window of minutes at any rate."""
_RUNS, _BITMAP = 0, 1


def encode(progress: Progress) -> tuple[str, bool]:
    """Commit metadata for `progress`, and whether all completed offsets fitted.

    Those that did not are the highest; leaving them out is safe, since a takeover finds their
    answers in `results`.
    """
    bounds = progress.bounds or Bounds()
    mark = progress.mark or Mark(-1, 0)
    numbers = (
        progress.epoch,
        progress.takeovers,
        0 if progress.trial is None else progress.trial + 1,
        progress.trials,
        bounds.results,
        bounds.partials,
        mark.offset + 1,
        mark.digest,
        _zigzag(progress.stamps_ms),
        progress.group,
    )
    head = b"".join(map(_varint, numbers))
    offsets = progress.completed[:_MAX_COMPLETED]
    whole = len(offsets) == len(progress.completed)
    while len(body := _pack(offsets, progress.offset)) + len(head) + 4 > _MAX_PAYLOAD:
        offsets, whole = offsets[: len(offsets) * 7 // 8], False
    payload = head + body
    payload += _check(_VERSION, payload)
    return _armour(_VERSION, payload), whole


def decode(offset: int, metadata: str) -> Progress:
    """What a commit said; damaged or foreign metadata falls back to the bare watermark."""
    try:
        return _decode(offset, metadata)
    except (ValueError, IndexError, binascii.Error):
        return Progress(offset)


def _check(version: str, payload: bytes) -> bytes:
    """Covers the version too, but in the first: one that is damaged is not taken for another."""
    covered = b"" if version == "1" else version.encode()
    return crc32(covered + payload).to_bytes(4, "big")


def _armour(version: str, payload: bytes) -> str:
    return version + base64.b64encode(payload).decode().rstrip("=")


def _decode(offset: int, metadata: str) -> Progress:
    version, text = metadata[:1], metadata[1:]
    if version not in _NUMBERS or len(metadata) > MAX_METADATA_BYTES:
        raise ValueError("not our version")
    payload = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    if _armour(version, payload) != metadata:
        raise ValueError("not as we write it")
    payload, check = payload[:-4], payload[-4:]
    if _check(version, payload) != check:
        raise ValueError("damaged")
    numbers = _Varints(payload)
    head = [numbers.next() for _ in range(_NUMBERS[version])] + [0, 0, 0, 1]
    epoch, takeovers, trial, trials, results, partials, marked, digest, stamps, group = head[:10]
    return Progress(
        offset,
        tuple(_unpack(numbers, offset)),
        Bounds(results, partials),
        epoch,
        takeovers,
        trial - 1 if trial else None,
        trials,
        Mark(marked - 1, digest) if marked else None,
        _unzigzag(stamps),
        group,
    )


def _pack(offsets: Sequence[int], watermark: int) -> bytes:
    """Runs or a bitmap, whichever is shorter."""
    runs = bytes([_RUNS]) + b"".join(map(_varint, _run_numbers(offsets, watermark)))
    span = (offsets[-1] - watermark) // 8 + 1 if offsets else 0
    if span + 1 >= len(runs):
        return runs
    bitmap = bytearray(span)
    for offset in offsets:
        byte, bit = divmod(offset - watermark, 8)
        bitmap[byte] |= 1 << bit
    return bytes([_BITMAP]) + bitmap


def _run_numbers(offsets: Sequence[int], watermark: int) -> Iterator[int]:
    """Gap and length of each run, the gap counted from the end of the run before."""
    if not offsets:
        return
    breaks = [i + 1 for i, (a, b) in enumerate(pairwise(offsets)) if b != a + 1]
    end = watermark
    for first, after in pairwise([0, *breaks, len(offsets)]):
        yield offsets[first] - end
        yield after - first
        end = offsets[after - 1] + 1


def _unpack(numbers: _Varints, watermark: int) -> Iterator[int]:
    kind = numbers.next()
    if kind == _RUNS:
        end, left = watermark, _MAX_COMPLETED
        while not numbers.exhausted:
            first = end + numbers.next()
            end = first + numbers.next()
            left -= end - first
            if left < 0:
                raise ValueError("so many offsets were never written")
            yield from range(first, end)
    elif kind == _BITMAP:
        for at, byte in enumerate(numbers.rest()):
            yield from (watermark + at * 8 + bit for bit in range(8) if byte >> bit & 1)
    else:
        raise ValueError("unknown packing")


def _zigzag(number: int) -> int:
    """A number with a sign as one without, as protocol buffers write it: 0, -1, 1, -2, ..."""
    return number * 2 if number >= 0 else -number * 2 - 1


def _unzigzag(number: int) -> int:
    return -(number + 1) // 2 if number % 2 else number // 2


def _varint(number: int) -> bytes:
    """LEB128, as protocol buffers write unsigned integers."""
    if not 0 <= number <= _MAX_NUMBER:
        raise ValueError(f"{number} does not go into a commit")
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


class _Varints:
    """Reads LEB128 integers from bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def exhausted(self) -> bool:
        return self._at >= len(self._data)

    def rest(self) -> bytes:
        return self._data[self._at :]

    def next(self) -> int:
        number = shift = 0
        while True:
            byte = self._data[self._at]
            self._at += 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80 and number <= _MAX_NUMBER:
                return number
            if shift > 63:
                raise ValueError("a number of that length was never written")
