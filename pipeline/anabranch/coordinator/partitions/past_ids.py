"""Ids of queries that were done before a takeover: repeats of them are repeats for whoever is next.

They are read from `queries` itself, backwards from the watermark: its records are smaller than
answers, and say what the owner before remembered. Bounded in time, in number and in bytes.

Stamps of leaders whose clocks differ cannot be told apart. An id too many is remembered a while
longer, one too few is answered twice: so a record counts by the latest time that it may have, which
is no earlier than that of any record before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Final

from anabranch.config.settings import CoordinatorConfig
from anabranch.contract.codec import read_id
from anabranch.coordinator.progress.dedupe_window import PastId
from anabranch.coordinator.progress.window import Progress
from anabranch.kafka.ranges import read_ranges
from anabranch.kafka.transport import LOG_APPEND_TIME, Reader, Record, TopicPartition

__all__ = ["MAX_BYTES", "read_ids"]

MAX_BYTES: Final = 16_000_000
"""Of `queries`, for all partitions that are taken over at once: nothing is answered meanwhile."""
_FIRST: Final = 16
_GROWTH: Final = 8


async def read_ids(
    reader: Reader,
    topic: str,
    takeovers: Mapping[int, Progress],
    beginnings: Mapping[TopicPartition, int],
    config: CoordinatorConfig,
    now_ms: float,
) -> dict[int, list[PastId]]:
    """The ids below each watermark, oldest first."""
    share_bytes = MAX_BYTES // max(len(takeovers), 1)
    walks = {
        (tp := TopicPartition(topic, number)): _Walk(
            progress, beginnings[tp], config, now_ms, share_bytes
        )
        for number, progress in takeovers.items()
    }
    while ranges := {tp: walk.step() for tp, walk in walks.items() if not walk.ended}:
        async for record in read_ranges(reader, ranges):
            walks[TopicPartition(topic, record.partition)].take(record)
    return {tp.partition: walk.ids() for tp, walk in walks.items()}


class _Walk:
    """Backwards through one partition, in steps that grow as far as the bytes allow."""

    def __init__(
        self,
        progress: Progress,
        beginning: int,
        config: CoordinatorConfig,
        now_ms: float,
        left_bytes: int,
    ) -> None:
        self._at = progress.offset
        self._behind_ms = max(progress.stamps_ms, 0)  # the leader before may not have been ahead
        self._beginning = beginning
        self._now_ms = now_ms
        self._since_ms = now_ms - config.dedupe_window_ms
        self._left = config.dedupe_max_ids
        self._left_bytes = left_bytes
        self._size = _FIRST
        self._read_bytes = 0
        self._times_ms: list[float] = []
        self._steps: list[list[PastId]] = []

    @property
    def ended(self) -> bool:
        """Whether there is nothing more to be read, or it may not be."""
        spent = self._left <= 0 or self._left_bytes <= 0 or self._at <= self._beginning
        return spent or max(self._times_ms, default=self._now_ms) <= self._since_ms

    def step(self) -> range:
        """The next offsets to read."""
        if self._steps:
            each_bytes = max(self._read_bytes // self._size, 1)
            self._size = min(self._size * _GROWTH, self._left_bytes // each_bytes + 1)
        self._size = min(self._size, self._left)
        self._read_bytes = 0
        self._times_ms = []
        self._steps.append([])
        offsets = range(max(self._at - self._size, self._beginning), self._at)
        self._at = offsets.start
        self._left -= len(offsets)
        return offsets

    def take(self, record: Record) -> None:
        """A record of the present step."""
        size = len(record.value or b"")
        self._read_bytes += size
        self._left_bytes -= size
        trusted = record.timestamp_type == LOG_APPEND_TIME
        at_ms = min(record.timestamp + self._behind_ms, self._now_ms) if trusted else self._now_ms
        self._times_ms.append(at_ms)
        id_ = read_id(record.value)
        if id_ is not None:
            self._steps[-1].append(PastId(id_, at_ms, record.offset))

    def ids(self) -> list[PastId]:
        """What was found, oldest first."""
        found, latest_ms = [], float("-inf")
        for past in chain.from_iterable(reversed(self._steps)):
            latest_ms = max(latest_ms, past.at_ms)
            if latest_ms > self._since_ms:
                found.append(past._replace(at_ms=latest_ms))
        return found
