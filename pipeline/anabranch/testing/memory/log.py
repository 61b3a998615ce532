"""Topics and the logs of their partitions."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable

from anabranch.errors import TopicError
from anabranch.kafka.transport import (
    CREATE_TIME,
    LOG_APPEND_TIME,
    Headers,
    Record,
    TopicPartition,
)

__all__ = ["MAX_MESSAGE_BYTES", "Log", "Topic", "partition_of", "size_of"]

MAX_MESSAGE_BYTES = 1_048_588
"""Kafka's default of `max.message.bytes`."""


class Log:
    """One partition: records by offset, some of them gone, some of them no records at all."""

    def __init__(self, partition: TopicPartition) -> None:
        self.partition = partition
        self.start = 0
        """First offset that still exists."""
        self.watchers: dict[Callable[[], None], None] = {}
        """Told of every append, in the order in which they came."""
        self._entries: list[Record | None] = []
        self._open: dict[int, None] = {}
        """Offsets in open transactions, in the order in which they came."""
        self._clocks: list[tuple[int, int]] = [(0, 0)]
        """How far the leaders' clocks were ahead, each from its first offset on."""

    @property
    def ahead_ms(self) -> int:
        """How far the present leader's clock is ahead of the broker's."""
        return self._clocks[-1][1]

    def lead(self, ahead_ms: int) -> None:
        """Another broker leads, whose clock is so far ahead."""
        self._clocks.append((self.end, ahead_ms))

    @property
    def leader_epoch(self) -> int:
        """How many brokers led before the present one."""
        return len(self._clocks) - 1

    def appended_ms(self, record: Record) -> int:
        """When a record was really appended."""
        ahead = next(ms for first, ms in reversed(self._clocks) if first <= record.offset)
        return record.timestamp - (ahead if record.timestamp_type == LOG_APPEND_TIME else 0)

    @property
    def end(self) -> int:
        """Offset after the last record."""
        return len(self._entries)

    @property
    def stable_end(self) -> int:
        """Offset after the last record that no open transaction holds back."""
        return next(iter(self._open), self.end)

    def append(
        self,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        timestamp: int,
        timestamp_type: int,
    ) -> int:
        """Append a record and say at which offset."""
        offset = self.end
        record = Record(*self.partition, offset, timestamp, timestamp_type, key, value, headers)
        self._entries.append(record._replace(leader_epoch=self.leader_epoch))
        self._tell()
        return offset

    def append_unreadable(self, raw: bytes, timestamp: int, offsets: int = 1) -> int:
        """Append a batch of so many offsets that nobody can unpack; said at its last offset."""
        first = self.end
        self._entries += [None] * (offsets - 1)
        error = f"offsets {first} to {self.end} cannot be unpacked: the test says so"
        self._entries.append(
            Record(*self.partition, self.end, timestamp, LOG_APPEND_TIME, None, raw, (), error)
        )
        self._tell()
        return self.end - 1

    def append_marker(self) -> None:
        """Use up an offset without a record, as the end of a transaction does."""
        self._entries.append(None)
        self._tell()

    def hold(self, offset: int) -> None:
        """A record belongs to a transaction that is not decided."""
        self._open[offset] = None

    def decide(self, offsets: Iterable[int], *, committed: bool) -> None:
        """The end of a transaction; what it aborts was never a record."""
        for offset in self._open.keys() & set(offsets):
            del self._open[offset]
            if not committed:
                self._entries[offset] = None
        self.append_marker()

    def delete_before(self, offset: int) -> None:
        """Retention: everything below `offset` is gone."""
        self.start = max(self.start, min(offset, self.end))

    def truncate(self, end: int) -> None:
        """A tail is lost, acknowledged or not, as by an unclean leader election."""
        del self._entries[end:]
        self.lead(self.ahead_ms)
        self.start = min(self.start, self.end)
        self._open = {offset: None for offset in self._open if offset < end}
        self._tell()

    def read(self, first: int, end: int) -> list[Record]:
        """The records of `first <= offset < end` that exist."""
        entries = self._entries[max(first, self.start) : max(end, 0)]
        return [record for record in entries if record is not None]

    def _tell(self) -> None:
        for watcher in tuple(self.watchers):
            watcher()


class Topic:
    """A topic's logs and settings."""

    def __init__(self, name: str, partitions: int, settings: dict[str, str]) -> None:
        self.name = name
        self.settings = settings
        self.logs = [Log(TopicPartition(name, number)) for number in range(partitions)]

    @property
    def timestamp_type(self) -> int:
        own = self.settings.get("message.timestamp.type") == "CreateTime"
        return CREATE_TIME if own else LOG_APPEND_TIME

    def grow(self, partitions: int) -> None:
        """Add partitions, up to that many."""
        present = len(self.logs)
        self.logs += [Log(TopicPartition(self.name, n)) for n in range(present, partitions)]

    def log(self, partition: int) -> Log:
        """
        Raises:
            TopicError: there is no such partition.
        """
        if not 0 <= partition < len(self.logs):
            raise TopicError(f"{self.name} has no partition {partition}, but {len(self.logs)}")
        return self.logs[partition]

    def refusal(
        self, key: bytes | None, value: bytes | None, headers: Headers, request_bytes: int
    ) -> str | None:
        """Why neither broker nor client takes a record, or None if they do."""
        most = min(int(self.settings.get("max.message.bytes", MAX_MESSAGE_BYTES)), request_bytes)
        size = size_of(key, value, headers)
        if size > most:
            return f"{self.name}: a record of {size:,} bytes, over {most:,}"
        if key is None and "compact" in self.settings.get("cleanup.policy", ""):
            return f"{self.name}: a compacted topic takes no record without a key"
        return None


def size_of(key: bytes | None, value: bytes | None, headers: Headers) -> int:
    """What a record takes, headers included, without the framing."""
    inside = sum(len(name.encode()) + len(content or b"") for name, content in headers)
    return len(key or b"") + len(value or b"") + inside


def partition_of(key: bytes, partitions: int) -> int:
    """Where a keyed record goes: the same key to the same partition, though not Kafka's."""
    return zlib.crc32(key) % partitions
