"""Takeover: read back what is answered and what has arrived, from the committed offsets."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Final

from anabranch.config.settings import CoordinatorConfig
from anabranch.contract.codec import decode_partial
from anabranch.contract.events import HEADER_OFFSET
from anabranch.coordinator.partitions.past_ids import read_ids
from anabranch.coordinator.progress.metadata import decode as decode_progress
from anabranch.coordinator.progress.restored import Restored
from anabranch.coordinator.progress.window import Bounds, Mark, Progress
from anabranch.coordinator.query.cache_fill import CacheFill
from anabranch.kafka.ranges import read_ranges
from anabranch.kafka.topics import Topics
from anabranch.kafka.transport import Committed, Headers, Reader, Record, TopicPartition
from anabranch.runtime.containment import contained, ignore

__all__ = ["Recovery", "progress_of"]

log = logging.getLogger(__name__)

_MAX_DIGITS: Final = 19
"""Of an offset."""


def progress_of(committed: Committed | None, beginning: int, end: int) -> Progress:
    """What a commit says of a log that holds these offsets.

    Without one, a partition is read from its beginning; so is one that ends before the commit: it
    was made anew, or a node lost what it had.
    """
    if committed is None:
        return Progress(beginning, bounds=Bounds())
    progress = decode_progress(committed.offset, committed.metadata)
    if progress.offset > end or (progress.mark is not None and progress.mark.offset >= end):
        return _anew(progress, beginning)
    return progress.within(beginning, end)


class Recovery:
    """Reads back what is there of partitions that are taken over.

    Args:
        reader: used by takeovers only.
        cache_fill: partials fill the cache on the way.
    """

    def __init__(
        self,
        reader: Reader,
        topics: Topics,
        config: CoordinatorConfig,
        cache_fill: CacheFill,
        now_ms: Callable[[], float],
    ) -> None:
        self._reader = reader
        self._topics = topics
        self._config = config
        self._cache_fill = cache_fill
        self._now_ms = now_ms

    async def read_back(self, takeovers: Mapping[int, Progress]) -> dict[int, Restored]:
        """What is there of queries that are not done, to the present ends of all logs.

        Reads `results[p]` and `partials[p]` from each p's bounds, and of `queries[p]` the ids of
        those that are done.
        """
        reader, topics = self._reader, self._topics
        joined = [
            TopicPartition(topic, p)
            for topic in (topics.results, topics.partials)
            for p in takeovers
        ]
        queries = [TopicPartition(topics.queries, p) for p in takeovers]
        beginnings = await reader.beginnings([*joined, *queries])
        ends = await reader.ends(joined)
        ends |= await reader.ends(queries)  # later: no answer is to a query beyond
        marks = {number: progress.mark for number, progress in takeovers.items()}
        epochs = await _known_again(reader, topics.queries, marks, beginnings)
        takeovers = {
            number: progress if number in epochs else _read_anew(number, progress, beginnings[tp])
            for (number, progress), tp in zip(takeovers.items(), queries, strict=True)
        }
        restored = await self._restore(takeovers, epochs, beginnings, ends)
        ranges = {
            tp: range(
                max(_start(takeovers[tp.partition], tp, topics, ends[tp]), beginnings[tp]), ends[tp]
            )
            for tp in joined
        }
        async for record in read_ranges(reader, ranges):
            if record.topic == topics.results:
                _take_answer(restored[record.partition], record)
            else:
                self._take_partial(restored[record.partition], record)
        return restored

    async def still_hold(self, marks: Mapping[int, Mark | None]) -> Collection[int]:
        """Those of these partitions whose logs hold what was read of them last."""
        topic = self._topics.queries
        beginnings = await self._reader.beginnings([TopicPartition(topic, n) for n in marks])
        return (await _known_again(self._reader, topic, marks, beginnings)).keys()

    async def _restore(
        self,
        takeovers: Mapping[int, Progress],
        epochs: Mapping[int, int],
        beginnings: Mapping[TopicPartition, int],
        ends: Mapping[TopicPartition, int],
    ) -> dict[int, Restored]:
        """What the commits say, with the ids below them."""
        topics, config = self._topics, self._config
        ids = await read_ids(
            self._reader, topics.queries, takeovers, beginnings, config, self._now_ms()
        )
        return {
            p: Restored(
                progress,
                Bounds(
                    ends[TopicPartition(topics.results, p)],
                    ends[TopicPartition(topics.partials, p)],
                ),
                ends[TopicPartition(topics.queries, p)],
                ids[p],
                max_bytes=config.max_open_bytes // len(takeovers),
                leader_epoch=epochs.get(p, -1),
            )
            for p, progress in takeovers.items()
        }

    def _take_partial(self, restored: Restored, record: Record) -> None:
        with contained(ignore):  # dead-lettered by whoever read it first
            partial = decode_partial(record.value)
            self._cache_fill.partial(record, partial, None, self._now_ms())
            restored.add_partial(record, partial)


async def _known_again(
    reader: Reader,
    topic: str,
    marks: Mapping[int, Mark | None],
    beginnings: Mapping[TopicPartition, int],
) -> dict[int, int]:
    """Partitions whose logs hold what was read of them, each with the leader epoch of its mark.

    A log of which nothing was read, or whose mark is gone with its head, is believed: epoch -1.
    """
    wanted = {
        number: mark
        for number, mark in marks.items()
        if mark is not None and mark.offset >= beginnings[TopicPartition(topic, number)]
    }
    known = dict.fromkeys(marks.keys() - wanted.keys(), -1)
    ranges = {
        TopicPartition(topic, number): range(mark.offset, mark.offset + 1)
        for number, mark in wanted.items()
    }
    async for record in read_ranges(reader, ranges):
        if Mark.of(record) == wanted[record.partition]:
            known[record.partition] = record.leader_epoch
    return known


def _read_anew(number: int, progress: Progress, beginning: int) -> Progress:
    """What is said of a log that is another one now is not believed."""
    log.warning(
        "partition %d of queries lost its tail and grew again, or was made anew: it is read "
        "from its beginning, without what is answered",
        number,
    )
    return _anew(progress, beginning)


def _anew(progress: Progress, beginning: int) -> Progress:
    return Progress(
        beginning,
        bounds=Bounds(),
        epoch=progress.epoch,
        takeovers=progress.takeovers,
        stamps_ms=progress.stamps_ms,
    )


def _start(progress: Progress, tp: TopicPartition, topics: Topics, end: int) -> int:
    """Where to begin. A log that ends before has lost its tail, and may have grown again.

    An answer that is not found is given again, so all of `results` is read then. Partials that are
    not found are asked for again.
    """
    bounds = progress.bounds or Bounds()
    if tp.topic == topics.partials:
        return min(bounds.partials, end)
    return bounds.results if bounds.results <= end else 0


def _take_answer(restored: Restored, record: Record) -> None:
    """An answered offset, by its header and key, without decoding the answer."""
    offset = _offset_of(record.headers)
    if offset is not None:
        restored.add_answer(offset, (record.key or b"").decode(errors="replace"))


def _offset_of(headers: Headers) -> int | None:
    """The first offset that is named; what is no offset, whoever wrote it, is none."""
    named = (value for name, value in headers if name == HEADER_OFFSET)
    value = next(named, b"")
    return int(value) if len(value) <= _MAX_DIGITS and value.isdigit() else None
