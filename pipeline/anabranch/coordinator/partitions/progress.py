"""The query's offset is the join's state: which offsets of a partition are done, in a commit.

`Window` keeps it while the partition is owned; `encode`/`decode` carry it in the commit's
metadata (4,096 characters at most), so that there is no other state store.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Final
from zlib import crc32

from msgspec import Struct, structs

from anabranch.kafka.transport import Record

__all__ = ["MAX_METADATA_BYTES", "Bounds", "Mark", "Progress", "Window", "decode", "encode"]

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


class Bounds(Struct, frozen=True, gc=False):
    """Where `results[p]` and `partials[p]` ended, at least, when a query was first read."""

    results: int = 0
    partials: int = 0

    def lowered(self, to: Bounds) -> Bounds:
        """The lower of both, each."""
        return Bounds(min(self.results, to.results), min(self.partials, to.partials))


class Mark(Struct, frozen=True, gc=False):
    """The last record that was read: by it a log is known again.

    Logs agree up to any record that they share. One that has another record there lost its tail
    and grew again, or was made anew: then nothing that is said of its offsets holds.
    """

    offset: int
    digest: int

    @staticmethod
    def of(record: Record) -> Mark:
        """The mark of a record."""
        return Mark(record.offset, crc32(record.value or b"", record.timestamp & 0xFFFFFFFF))


class Progress(Struct, frozen=True):
    """What a commit says of a partition of `queries`.

    Attributes:
        offset: the watermark: every lower offset is done.
        completed: done offsets from there on, ascending.
        bounds: of the oldest open query; None means unknown: read from the beginning.
        epoch: raised by every takeover.
        takeovers: takeovers in a row after which the oldest open query was not answered.
        trial: a suspect's offset, written before it is started.
        trials: how often it has been on trial alone.
        mark: the last query that was read.
        stamps_ms: how far the partition's time stamps are behind the broker's clock.
        group: how many suspects, from that one on, are on trial together.
    """

    offset: int
    completed: tuple[int, ...] = ()
    bounds: Bounds | None = None
    epoch: int = 0
    takeovers: int = 0
    trial: int | None = None
    trials: int = 0
    mark: Mark | None = None
    stamps_ms: int = 0
    group: int = 1

    def within(self, beginning: int, end: int) -> Progress:
        """What of it concerns a log that holds these offsets.

        Retention may have outrun the watermark: what is gone cannot be answered any more.
        """
        offset = max(self.offset, beginning)
        on_trial = self.trial is not None and offset <= self.trial < end
        return structs.replace(
            self,
            offset=offset,
            completed=tuple(done for done in self.completed if offset <= done < end),
            trial=self.trial if on_trial else None,
            trials=self.trials if on_trial else 0,
            group=self.group if on_trial else 1,
        )


class Window:
    """The offsets of an owned partition between its watermark and its position.

    Offsets are opened in ascending order and completed in any.
    """

    __slots__ = ("_done", "_open", "position")

    def __init__(self, position: int, done: Iterable[int] = ()) -> None:
        self.position = position
        """The next offset to be read."""
        self._open: dict[int, Bounds] = {}  # ascending, as offsets are opened in order
        self._done = set(done)

    def __len__(self) -> int:
        """How many offsets are open."""
        return len(self._open)

    @property
    def watermark(self) -> int:
        """The lowest open offset, else the position (transactions leave gaps between)."""
        return next(iter(self._open), self.position)

    def is_done(self, offset: int) -> bool:
        """Whether an offset at or above the watermark was completed before."""
        return offset in self._done

    def open(self, offset: int, bounds: Bounds) -> None:
        """A query was read; it stays open until its answer is acknowledged."""
        self._open[offset] = bounds
        self.position = offset + 1

    def skip(self, offset: int) -> None:
        """A record was read that is answered."""
        self._done.add(offset)
        self.position = offset + 1

    def complete(self, offset: int) -> None:
        """An answer was acknowledged."""
        if self._open.pop(offset, None) is not None:
            self._done.add(offset)

    def lower(self, bounds: Bounds) -> None:
        """`results` or `partials` lost their tail: what comes for open queries may lie lower."""
        self._open = {offset: had.lowered(bounds) for offset, had in self._open.items()}

    def snapshot(self, here: Bounds) -> Progress:
        """What is done; `here` are the bounds of what is read next, if nothing is open."""
        watermark = self.watermark
        # The watermark itself may be done: restored as such, and not read again yet.
        self._done = {offset for offset in self._done if offset >= watermark}
        return Progress(
            offset=watermark,
            completed=tuple(sorted(self._done)),
            bounds=next(iter(self._open.values()), here),
        )


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
