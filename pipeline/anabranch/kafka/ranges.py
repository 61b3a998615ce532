"""Reading so much of a log and no more: what a start or a takeover reads back."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Final

from anabranch.kafka.transport import Reader, Record, TopicPartition
from anabranch.kafka.turns import in_turns

__all__ = ["read_ranges"]

_FETCH_MS: Final = 200


async def read_ranges(
    reader: Reader, ranges: Mapping[TopicPartition, range], beat: Callable[[], None] | None = None
) -> AsyncGenerator[Record, None]:
    """The records of these offsets that exist, in order within a partition; to be exhausted.

    A log that loses its tail, or its head, meanwhile ends earlier.

    Args:
        beat: called before each fetch.
    """
    ends = {tp: offsets.stop for tp, offsets in ranges.items() if offsets}
    reader.assign({tp: ranges[tp].start for tp in ends})
    while any(reader.position(tp) < end for tp, end in ends.items()):
        if beat is not None:
            beat()
        batches = await reader.fetch(_FETCH_MS)
        async for tp, record in in_turns(batches):
            if record.offset in ranges[tp]:
                yield record
        if not batches:
            present = await reader.ends(ends.keys())
            ends = {tp: min(end, present[tp]) for tp, end in ends.items()}
    reader.assign({})
