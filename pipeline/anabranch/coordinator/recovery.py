"""Takeover: read back what is answered and what has arrived, from the committed offsets."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping

from msgspec import structs

from anabranch.containment import contained, ignore
from anabranch.coordinator.brain import Brain
from anabranch.coordinator.cache_fold import fold_partial
from anabranch.coordinator.restored import Restored
from anabranch.events import HEADER_OFFSET, Partial, decode
from anabranch.kafka.progress import Bounds, Progress
from anabranch.kafka.progress import decode as decode_progress
from anabranch.kafka.topics import Topics
from anabranch.kafka.transport import Committed, Reader, Record, TopicPartition
from anabranch.turns import in_turns

__all__ = ["progress_of", "read_back"]

_FETCH_MS = 200


def progress_of(committed: Committed | None, beginning: int, end: int) -> Progress:
    """What a commit says; without one, a partition is read from its beginning.

    So is one that ends before the commit: it was made anew, or a node lost what it had.
    """
    if committed is None:
        return Progress(beginning, bounds=Bounds())
    progress = decode_progress(committed.offset, committed.metadata)
    if progress.offset > end:
        return Progress(beginning, bounds=Bounds(), epoch=progress.epoch)
    # Retention may have outrun the watermark: what is gone cannot be answered any more.
    return structs.replace(progress, offset=max(progress.offset, beginning))


async def read_back(
    reader: Reader, brain: Brain, takeovers: Mapping[int, Progress]
) -> dict[int, Restored]:
    """Read `results[p]` and `partials[p]` from each p's bounds to their present ends.

    Partials fill the cache on the way.
    """
    topics = brain.topics
    wanted = [
        TopicPartition(topic, p) for topic in (topics.results, topics.partials) for p in takeovers
    ]
    beginnings, ends = await asyncio.gather(reader.beginnings(wanted), reader.ends(wanted))
    starts = {
        tp: min(max(_bound(takeovers[tp.partition], tp, topics), beginnings[tp]), ends[tp])
        for tp in wanted
    }
    restored = {
        p: Restored(
            progress,
            Bounds(
                ends[TopicPartition(topics.results, p)], ends[TopicPartition(topics.partials, p)]
            ),
            max_bytes=brain.config.coordinator.max_open_bytes // len(takeovers),
        )
        for p, progress in takeovers.items()
    }
    reader.assign(starts)
    while _behind(reader, ends):
        async for tp, record in in_turns(await reader.fetch(_FETCH_MS)):
            if record.offset >= ends[tp]:
                continue
            if record.topic == topics.results:
                _take_answer(restored[tp.partition], record)
            else:
                _take_partial(brain, restored[tp.partition], record)
    reader.assign({})
    return restored


def _bound(progress: Progress, tp: TopicPartition, topics: Topics) -> int:
    bounds = progress.bounds or Bounds()
    return bounds.results if tp.topic == topics.results else bounds.partials


def _behind(reader: Reader, ends: Mapping[TopicPartition, int]) -> Collection[TopicPartition]:
    return [tp for tp, end in ends.items() if reader.position(tp) < end]


def _take_answer(restored: Restored, record: Record) -> None:
    """An answered offset, by its header and key, without decoding the answer."""
    for name, value in record.headers:
        if name == HEADER_OFFSET and value.isdigit():
            restored.add_answer(int(value), (record.key or b"").decode(errors="replace"))


def _take_partial(brain: Brain, restored: Restored, record: Record) -> None:
    with contained(ignore):  # dead-lettered by whoever read it first
        partial = decode(record.value, Partial)
        fold_partial(brain, record, partial, None)
        restored.add_partial(record, partial)
