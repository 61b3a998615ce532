"""After a takeover, beside the work: fill the cache from partials before those that were needed.

Backwards in chunks by offset, until the records are older than anything may be served, or a
bound of bytes is met. The order does not matter: a slot is replaced only by a later partial.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from anabranch.config.settings import Config
from anabranch.contract.codec import decode_partial
from anabranch.coordinator.query.cache_fill import CacheFill
from anabranch.dispatch.layer_registry import LayerRegistry
from anabranch.kafka.ranges import read_ranges
from anabranch.kafka.topics import Topics, longest_ttl_ms
from anabranch.kafka.transport import Reader, Record, TopicPartition
from anabranch.runtime.containment import contained, ignore
from anabranch.runtime.supervisor import Stage

__all__ = ["Backfill"]

_CHUNK_RECORDS: Final = 1_000
_FIRST_RECORDS: Final = 100
_CHUNK_BYTES: Final = 2_000_000
_IDLE_MS: Final = 500
MAX_BYTES: Final = 32_000_000
"""Read for one partition at most, and a chunk."""


class _Chunk(NamedTuple):
    """What was read: where it begins, how old that is, and its size."""

    offset: int
    timestamp: int
    records: int
    size_bytes: int


class Backfill:
    """Reads partials of partitions that were taken over, from where the takeover began to read."""

    def __init__(
        self,
        reader: Reader,
        config: Config,
        registry: LayerRegistry,
        cache_fill: CacheFill,
        now_ms: Callable[[], float],
    ) -> None:
        self._reader = reader
        self._topic = Topics(config.namespace).partials
        self._registry = registry
        self._cache_fill = cache_fill
        self._now_ms = now_ms
        self._waiting: deque[tuple[int, int]] = deque()
        self._configured_ttl_ms = longest_ttl_ms(config)
        self._records = _FIRST_RECORDS

    def want(self, partition: int, before: int) -> None:
        """Read a partition's partials before an offset, when there is time."""
        self._waiting.append((partition, before))

    async def run(self, stage: Stage) -> None:
        """Stage: one chunk a turn."""
        left_bytes = MAX_BYTES
        while True:
            stage.beat()
            if not self._waiting:
                left_bytes = MAX_BYTES
                await self._reader.fetch(_IDLE_MS)  # nothing is assigned: a wait
                continue
            number, before = self._waiting.popleft()
            chunk = await self._chunk(stage, number, before)
            if chunk is not None:
                left_bytes -= chunk.size_bytes
                self._records = _next(chunk)
            if chunk is not None and left_bytes > 0 and not self._is_stale(chunk.timestamp):
                self._waiting.appendleft((number, chunk.offset))
            else:
                left_bytes = MAX_BYTES

    async def _chunk(self, stage: Stage, number: int, before: int) -> _Chunk | None:
        """Fold the records just before an offset; None at the beginning."""
        tp = TopicPartition(self._topic, number)
        start = max(before - self._records, (await self._reader.beginnings([tp]))[tp])
        if start >= before:
            return None
        first, count, size_bytes = None, 0, 0
        async for record in read_ranges(self._reader, {tp: range(start, before)}, stage.beat):
            first = first or record
            count += 1
            size_bytes += len(record.value or b"")
            self._fold(record)
        return _Chunk(first.offset, first.timestamp, count, size_bytes) if first else None

    def _fold(self, record: Record) -> None:
        with contained(ignore):  # dead-lettered by whoever followed it
            self._cache_fill.partial(record, decode_partial(record.value), None, self._now_ms())

    def _is_stale(self, timestamp_ms: int) -> bool:
        announced_ms = self._registry.longest_ttl_ms
        longest_ms = max(self._configured_ttl_ms, announced_ms)
        return timestamp_ms < self._now_ms() - longest_ms


def _next(chunk: _Chunk) -> int:
    """How many records to read next, by the size of these."""
    fit = _CHUNK_BYTES * chunk.records // max(chunk.size_bytes, 1)
    return max(1, min(fit, 2 * chunk.records, _CHUNK_RECORDS))
