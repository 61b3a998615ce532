"""What a fetch brought of one partition, batch by batch, in the shape that aiokafka iterates over.

aiokafka ends a consumer at the first batch that it cannot read. Here such a batch is read by
`salvage`, or stands as one unreadable record where not even that is possible. Its end is believed
only as far as the next batch, or the partition's end, allows: nobody skips what can be read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final

from aiokafka.record.default_records import DefaultRecordBatch

from anabranch.kafka.client.inflating import inflate
from anabranch.kafka.client.salvage import BatchHeader, salvage, unreadable
from anabranch.kafka.transport import Headers, Record, TopicPartition

__all__ = ["Batch", "Batches"]

_HEADER: Final = struct.Struct(">qiibIhiqqqhii")
_OFFSET_AND_LENGTH: Final = struct.Struct(">qi")
_LOG_OVERHEAD: Final = _OFFSET_AND_LENGTH.size
_MAGIC: Final = 2
_CODEC_MASK: Final = 0x07
_LOG_APPEND_TIME: Final = 0x08
_TRANSACTIONAL: Final = 0x10
_CONTROL: Final = 0x20
_ENOUGH_BYTES: Final = 16 * 1024 * 1024
"""Uncompressed, of one fetch; what comes after it is fetched again."""

_record: Final = tuple.__new__  # a third of what Record(...) costs


class Batch:
    """One batch, with what aiokafka asks of one.

    Args:
        bound: the first offset that cannot be in it.

    Attributes:
        corrupt: its checksum is wrong: what it says of itself may be too.
    """

    def __init__(self, at: TopicPartition, raw: bytes, bound: int) -> None:
        self.corrupt = False
        self.producer_id: int | None = None
        self.is_control_batch = self.is_transactional = False
        self.inflated_bytes = 0
        self._at = at
        self._raw = raw
        self._inner: Any = None
        """aiokafka's reading of it, if it is whole."""
        self._codec = 0
        self._stamps = (-1, -1, 0)
        self._leader_epoch = -1
        if len(raw) < _HEADER.size:
            self._error: Exception | None = ValueError(f"a batch of {len(raw)} bytes")
            self.base_offset = int.from_bytes(raw[:8], "big", signed=True)
            self.next_offset = self.base_offset + 1
        else:
            self._error = self._read_header(bound)

    def _read_header(self, bound: int) -> ValueError | None:
        base, _, epoch, magic, _, attributes, delta, first, latest, producer_id, *_ = (
            _HEADER.unpack_from(self._raw)
        )
        self.base_offset = base
        self.next_offset = max(base + 1, min(base + delta + 1, bound))
        if magic != _MAGIC:
            return ValueError(f"its format is {magic}, and we read {_MAGIC}")
        inner = DefaultRecordBatch(self._raw)
        if not inner.validate_crc():
            self.corrupt = True
            return ValueError("its checksum is wrong")
        self._inner = inner
        self._codec = attributes & _CODEC_MASK
        self._stamps = (first, latest, 1 if attributes & _LOG_APPEND_TIME else 0)
        self._leader_epoch = epoch
        self.producer_id = producer_id
        self.is_transactional = bool(attributes & _TRANSACTIONAL)
        self.is_control_batch = bool(attributes & _CONTROL)
        return None

    @property
    def _header(self) -> BatchHeader:
        return BatchHeader(
            self._at, self.base_offset, self.next_offset - 1, *self._stamps, self._leader_epoch
        )

    def validate_crc(self) -> bool:
        """True: what is corrupt says so when it is iterated over."""
        return True

    def __next__(self) -> Any:
        """The first record of a control batch, which says what it is for."""
        return next(iter(self._inner))

    def __iter__(self) -> Iterator[Record]:
        """Its records. Those before a damaged one come twice; aiokafka skips what it has had."""
        if self._codec and self._error is None:
            try:
                self._uncompress()
            except ValueError as error:
                self._error = error
        if self._error is not None:
            yield unreadable(self._header, self._raw, self._error)
            return
        offset, end, (topic, partition) = self.base_offset, self.next_offset, self._at
        epoch = self._leader_epoch
        try:
            for read in self._inner:
                if not offset <= read.offset < end:
                    raise ValueError("offsets must ascend, and stay in their batch")
                offset = read.offset + 1
                yield _record(
                    Record,
                    (
                        topic,
                        partition,
                        read.offset,
                        read.timestamp,
                        read.timestamp_type,
                        read.key,
                        read.value,
                        _without_nulls(read.headers),
                        None,
                        epoch,
                    ),
                )
        except Exception:  # aiokafka's own, a UnicodeDecodeError, whatever else it trips over
            yield from salvage(self._header, self._raw[_HEADER.size :])

    def _uncompress(self) -> None:
        """Have the records as they are."""
        fields = list(_HEADER.unpack_from(self._raw))
        body = inflate(self._raw[_HEADER.size :], self._codec)
        self.inflated_bytes = len(body)
        fields[1] = _HEADER.size - _LOG_OVERHEAD + len(body)
        fields[5] &= ~_CODEC_MASK
        self._raw = _HEADER.pack(*fields) + body
        self._inner = DefaultRecordBatch(self._raw)
        self._codec = 0


def _without_nulls(headers: list[tuple[str, bytes | None]]) -> Headers:
    """The same with values that are null as empty ones."""
    for _, value in headers:
        if value is None:
            return tuple((name, content or b"") for name, content in headers)
    return tuple(headers)  # type: ignore[arg-type]


class Batches:
    """The batches in `data`, in the shape of aiokafka's MemoryRecords.

    Args:
        end: of the partition.
        distrusted: base offsets of batches that were corrupt when they were read before: what
            the network did is mended by reading again.
    """

    def __init__(self, at: TopicPartition, data: bytes, end: int, distrusted: set[int]) -> None:
        self._at = at
        self._data = data
        self._end = end
        self._distrusted = distrusted
        self._begin = 0
        self._limit = self._slice_end(0)
        """Where the next one begins and ends; the end is 0 if there is none."""
        self._batch: Batch | None = None
        """The one that was handed out last."""
        self._inflated_bytes = 0

    def has_next(self) -> bool:
        """Whether to go on."""
        if self._batch is not None:
            self._inflated_bytes += self._batch.inflated_bytes
        self._batch = None
        if self._inflated_bytes > _ENOUGH_BYTES or not self._limit:
            return False
        batch = self._next()
        if batch.corrupt and batch.base_offset not in self._distrusted:
            self._distrusted.add(batch.base_offset)
            return False
        if self._distrusted:
            self._distrusted.discard(batch.base_offset)
        self._batch = batch
        return True

    def next_batch(self) -> Batch | None:
        """The one that `has_next` found."""
        return self._batch

    def _next(self) -> Batch:
        data, begin, end = self._data, self._begin, self._limit
        self._begin, self._limit = end, self._slice_end(end)
        bound = self._end
        if self._limit:
            bound = min(bound, _OFFSET_AND_LENGTH.unpack_from(data, end)[0])
        return Batch(self._at, data[begin:end], bound)

    def _slice_end(self, begin: int) -> int:
        """Where the batch that begins there ends; 0 if there is none, or a part of one."""
        size = len(self._data)
        if size - begin < _LOG_OVERHEAD:
            return 0
        length: int = _OFFSET_AND_LENGTH.unpack_from(self._data, begin)[1]
        if length < 0:
            return size  # where the next one begins is anybody's guess
        end = begin + _LOG_OVERHEAD + length
        return end if end <= size else 0
