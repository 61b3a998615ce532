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
from anabranch.kafka.client.salvage import BatchHeader, KafkaRecord, salvage, unreadable
from anabranch.kafka.transport import TopicPartition

__all__ = ["Batch", "Batches"]

_HEADER: Final = struct.Struct(">qiibIhiqqqhii")
_LOG_OVERHEAD: Final = 12
"""Base offset and length."""
_MAGIC: Final = 2
_CODEC_MASK: Final = 0x07
_LOG_APPEND_TIME: Final = 0x08
_TRANSACTIONAL: Final = 0x10
_CONTROL: Final = 0x20
_ENOUGH_BYTES: Final = 16 * 1024 * 1024
"""Uncompressed, of one fetch; what comes after it is fetched again."""


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
        self.base_offset = int.from_bytes(raw[:8], "big", signed=True)
        self._raw = raw
        self._attributes = 0
        self._error: Exception | None = None
        self.next_offset = self.base_offset + 1
        self._stamps = (-1, -1, 0)
        if len(raw) < _HEADER.size:
            self._error = ValueError(f"a batch of {len(raw)} bytes")
        else:
            self._read_header(bound)
        self._header = BatchHeader(at, self.base_offset, self.next_offset - 1, *self._stamps)

    def _read_header(self, bound: int) -> None:
        fields = _HEADER.unpack_from(self._raw)
        magic, attributes, delta = fields[3], fields[5], fields[6]
        self.next_offset = max(self.next_offset, min(self.base_offset + delta + 1, bound))
        if magic != _MAGIC:
            self._error = ValueError(f"its format is {magic}, and we read {_MAGIC}")
        elif not DefaultRecordBatch(self._raw).validate_crc():
            self.corrupt = True
            self._error = ValueError("its checksum is wrong")
        else:
            self._stamps = (*fields[7:9], int(bool(attributes & _LOG_APPEND_TIME)))
            self._attributes, self.producer_id = attributes, fields[9]
            self.is_transactional = bool(attributes & _TRANSACTIONAL)
            self.is_control_batch = bool(attributes & _CONTROL)

    def validate_crc(self) -> bool:
        """True: what is corrupt says so when it is iterated over."""
        return True

    def __next__(self) -> Any:
        """The first record of a control batch, which says what it is for."""
        return next(iter(DefaultRecordBatch(self._raw)))

    def __iter__(self) -> Iterator[KafkaRecord]:
        """Its records. Those before a damaged one come twice; aiokafka skips what it has had."""
        if self._error is None:
            try:
                plain = self._uncompressed()
            except ValueError as error:
                self._error = error
        if self._error is not None:
            yield unreadable(self._header, self._raw, self._error)
            return
        try:
            yield from self._records(plain)
        except Exception:  # aiokafka's own, a UnicodeDecodeError, whatever else it trips over
            yield from salvage(self._header, plain[_HEADER.size :])

    def _uncompressed(self) -> bytes:
        """The batch with its records as they are."""
        codec = self._attributes & _CODEC_MASK
        if not codec:
            return self._raw
        fields = list(_HEADER.unpack_from(self._raw))
        body = inflate(self._raw[_HEADER.size :], codec)
        self.inflated_bytes = len(body)
        fields[1] = _HEADER.size - _LOG_OVERHEAD + len(body)
        fields[5] &= ~_CODEC_MASK
        return _HEADER.pack(*fields) + body

    def _records(self, plain: bytes) -> Iterator[KafkaRecord]:
        offset, end = self.base_offset, self.next_offset
        for record in DefaultRecordBatch(plain):
            if not offset <= record.offset < end:
                raise ValueError("offsets must ascend, and stay in their batch")
            offset = record.offset + 1
            headers = record.headers
            if headers:
                headers = [(name, value or b"") for name, value in headers]
            yield KafkaRecord(
                *self._header.at,
                record.offset,
                record.timestamp,
                record.timestamp_type,
                record.key,
                record.value,
                tuple(headers),
            )


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
        self._pos = 0
        self._batch: Batch | None = None
        """The one that was handed out last."""
        self._inflated_bytes = 0

    def has_next(self) -> bool:
        """Whether to go on."""
        if self._batch is not None:
            self._inflated_bytes += self._batch.inflated_bytes
        self._batch = None
        if self._inflated_bytes > _ENOUGH_BYTES or not self._slice_end(self._pos):
            return False
        self._batch = batch = self._next()
        if batch.corrupt and batch.base_offset not in self._distrusted:
            self._distrusted.add(batch.base_offset)
            return False
        self._distrusted.discard(batch.base_offset)
        return True

    def next_batch(self) -> Batch | None:
        """The one that `has_next` found."""
        return self._batch

    def _next(self) -> Batch:
        begin, end = self._pos, self._slice_end(self._pos)
        self._pos = end
        bound = self._end
        if self._slice_end(end):
            bound = min(bound, int.from_bytes(self._data[end : end + 8], "big", signed=True))
        return Batch(self._at, self._data[begin:end], bound)

    def _slice_end(self, begin: int) -> int:
        """Where the batch that begins there ends; 0 if there is none, or a part of one."""
        if len(self._data) - begin < _LOG_OVERHEAD:
            return 0
        length = int.from_bytes(self._data[begin + 8 : begin + 12], "big", signed=True)
        if length < 0:
            return len(self._data)  # where the next one begins is anybody's guess
        end = begin + _LOG_OVERHEAD + length
        return end if end <= len(self._data) else 0
