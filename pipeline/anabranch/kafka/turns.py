"""A turn of a stage is bounded: whatever a fetch brings, everybody else runs in between.

A backlog is a normal morning, and so is a topic that is read from its beginning. Who works off all
of it in one turn sends no heartbeats meanwhile, and loses its partitions.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final, TypeVar

from anabranch.kafka.transport import Record, TopicPartition

__all__ = ["Turn", "in_turns", "one_by_one"]

T = TypeVar("T")

_RECORDS: Final = 250
_BYTES: Final = 2_000_000
_MS: Final = 10.0


class Turn:
    """What may be done before others run: so many records, bytes or milliseconds.

    Args:
        now_s: a monotonic clock.
    """

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self.begin()

    def begin(self) -> None:
        """A new one."""
        self._records = _RECORDS
        self._bytes = _BYTES
        self._until_s = self._now_s() + _MS / 1000

    def is_over(self, size_bytes: int = 0) -> bool:
        """Whether others are to run, now that one more of that size is done."""
        self._records -= 1
        self._bytes -= size_bytes
        return self._records <= 0 or self._bytes <= 0 or self._now_s() >= self._until_s


def in_turns(
    batches: Mapping[TopicPartition, Sequence[Record]],
    between: Callable[[], Awaitable[object]] | None = None,
) -> AsyncIterator[tuple[TopicPartition, Record]]:
    """Records one by one, as they were fetched, with a pause after each turn.

    A partition may have changed hands in a pause, or since the fetch began: whoever that concerns
    has to look before each record.

    Args:
        between: awaited in each pause, say to send on what the records brought.
    """
    fetched = ((tp, record) for tp, records in batches.items() for record in records)
    return one_by_one(fetched, between, lambda it: len(it[1].value or b""))


async def one_by_one(
    things: Iterable[T],
    between: Callable[[], Awaitable[object]] | None = None,
    size_of: Callable[[T], int] = lambda _: 0,
) -> AsyncIterator[T]:
    """The same for anything that there may be many of at once, such as deadlines."""
    turn = Turn(asyncio.get_running_loop().time)
    for thing in things:
        yield thing
        if turn.is_over(size_of(thing)):
            if between is not None:
                await between()
            await asyncio.sleep(0)
            turn.begin()
