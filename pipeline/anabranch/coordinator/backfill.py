"""After a takeover, beside the work: fill the cache from partials before those that were needed.

Backwards in chunks by offset, until the records are older than anything may be served, or a
bound of bytes is met. The order does not matter: a slot is replaced only by a later partial.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from anabranch.coordinator.brain import Brain
from anabranch.coordinator.cache_fold import fold_partial
from anabranch.errors import DecodeError
from anabranch.events import Partial, decode
from anabranch.kafka.topics import longest_ttl_ms
from anabranch.kafka.transport import Reader, Record, TopicPartition
from anabranch.supervise import Stage

__all__ = ["Backfill"]

_CHUNK_RECORDS: Final = 1_000
_FETCH_MS: Final = 100
_IDLE_MS: Final = 500
MAX_BYTES: Final = 32_000_000
"""Read for one partition at most."""


class Backfill:
    """Reads partials of partitions that were taken over, from where the takeover began to read."""

    def __init__(self, brain: Brain, reader: Reader) -> None:
        self._brain = brain
        self._reader = reader
        self._waiting: deque[tuple[int, int]] = deque()
        self._configured_ttl_ms = longest_ttl_ms(brain.config)

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
            records = await self._chunk(stage, number, before)
            for record in records:
                self._fold(record)
            left_bytes -= sum(len(record.value or b"") for record in records)
            if records and left_bytes > 0 and not self._is_stale(records[0]):
                self._waiting.appendleft((number, records[0].offset))
            else:
                left_bytes = MAX_BYTES

    async def _chunk(self, stage: Stage, number: int, before: int) -> Sequence[Record]:
        """The records just before an offset, in order; none at the beginning."""
        tp = TopicPartition(self._brain.topics.partials, number)
        start = max(before - _CHUNK_RECORDS, (await self._reader.beginnings([tp]))[tp])
        found: list[Record] = []
        if start < before:
            self._reader.assign({tp: start})
            while self._reader.position(tp) < before:
                stage.beat()
                for records in (await self._reader.fetch(_FETCH_MS)).values():
                    found += [record for record in records if record.offset < before]
            self._reader.assign({})
        return found

    def _fold(self, record: Record) -> None:
        try:
            partial = decode(record.value, Partial)
        except DecodeError:
            return  # dead-lettered by whoever followed it
        fold_partial(self._brain, record, partial, None)

    def _is_stale(self, record: Record) -> bool:
        announced_ms = self._brain.directory.longest_ttl_ms
        longest_ms = max(self._configured_ttl_ms, announced_ms)
        return record.timestamp < self._brain.now_ms() - longest_ms
