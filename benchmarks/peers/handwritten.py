"""Scatter-gather by hand on aiokafka, tuned: batches all the way, commits beside fetching.

    python handwritten.py BOOTSTRAP PREFIX gather|layers DELAYS_MS

A query's offset is committed once its answer is acknowledged, so that a gatherer that was killed
asks again. Left out is what a competent user leaves out: deadlines, retries, a cache, dead
letters, a partial answer where a layer fails.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import uvloop
from aiokafka import TopicPartition
from pipe import Pipe, Place
from scatter_gather import (
    LAYERS,
    Arguments,
    Partial,
    Task,
    arguments,
    by_layer,
    decode_partial,
    decode_query,
    decode_task,
    encode,
    found,
    joined,
    tasks,
)


class Join(NamedTuple):
    """A query that waits for its layers, and where it stands."""

    place: Place
    parts: dict[str, Partial]


class Gatherer:
    """Queries to tasks, partials to answers."""

    def __init__(self, bootstrap: str, prefix: str) -> None:
        self._queries, self._partials = f"{prefix}.q", f"{prefix}.p"
        self._tasks, self._results = f"{prefix}.t", f"{prefix}.r"
        self._pipe = Pipe(bootstrap, f"{prefix}-gather", [self._queries, self._partials])
        self._joins: dict[str, Join] = {}

    async def run(self) -> None:
        await self._pipe.run(self._handle)

    async def _handle(self, tp: TopicPartition, records: Sequence[Any]) -> None:
        await (self._scatter if tp.topic == self._queries else self._gather)(tp, records)

    async def _scatter(self, tp: TopicPartition, records: Sequence[Any]) -> None:
        out = []
        for record in records:
            query = decode_query(record.value)
            self._joins[query.id] = Join((tp, record.offset), {})
            out += [(record.key, encode(task)) for task in tasks(query)]
        await self._pipe.send_batch(self._tasks, tp.partition, out)

    async def _gather(self, tp: TopicPartition, records: Sequence[Any]) -> None:
        answers, answered = [], []
        for record in records:
            partial = decode_partial(record.value)
            if (join := self._joins.get(partial.id)) is None:
                continue  # of a query that was answered before, or is still to be read again
            join.parts[partial.layer] = partial
            if len(join.parts) == len(LAYERS):
                del self._joins[partial.id]
                answers.append((record.key, encode(joined(join.parts.values()))))
                answered.append(join.place)
        # A partial is worth nothing without its query, which is asked again after a crash.
        self._pipe.close((tp, record.offset) for record in records)
        if answers:
            acks = await self._pipe.send_batch(self._results, tp.partition, answers)
            self._pipe.close_when(acks, answered)


class Layers:
    """Tasks to partials."""

    def __init__(self, bootstrap: str, prefix: str, delays_s: dict[str, float]) -> None:
        self._results = f"{prefix}.p"
        self._delays_s = delays_s
        self._pipe = Pipe(bootstrap, f"{prefix}-layers", [f"{prefix}.t"])
        self._running: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        await self._pipe.run(self._handle)

    async def _handle(self, tp: TopicPartition, records: Sequence[Any]) -> None:
        given = [(record, decode_task(record.value)) for record in records]
        if not self._delays_s:
            await self._answer(tp, given)
            return
        for layer, group in by_layer(given):
            task = asyncio.create_task(self._answer(tp, group, self._delays_s[layer]))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _answer(
        self, tp: TopicPartition, given: Sequence[tuple[Any, Task]], delay_s: float = 0.0
    ) -> None:
        if delay_s:
            await asyncio.sleep(delay_s)  # of all at once: they came together
        out = [(record.key, encode(found(task))) for record, task in given]
        acks = await self._pipe.send_batch(self._results, tp.partition, out)
        self._pipe.close_when(acks, [(tp, record.offset) for record, _ in given])


async def main(given: Arguments) -> None:
    if given.role == "gather":
        await Gatherer(given.bootstrap, given.prefix).run()
    else:
        await Layers(given.bootstrap, given.prefix, given.delays_s).run()


if __name__ == "__main__":
    uvloop.run(main(arguments(sys.argv[1:])))
