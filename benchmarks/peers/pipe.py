"""What is written by hand on aiokafka is built on: one consumer, one producer, offsets between.

Offsets are committed every 100 ms, beside fetching, up to the first whose outcome the broker has
not acknowledged: at least once. acks=all, idempotent, like everybody in these benchmarks.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

COMMIT_S = 0.1
BATCH_BYTES = 262_144

Handle = Callable[[TopicPartition, Sequence[Any]], Awaitable[None]]
Place = tuple[TopicPartition, int]
"""Partition and offset of a record."""


class Pipe:
    """Fetches records, has them handled, and commits those that are `close`d."""

    def __init__(self, bootstrap: str, group: str, sources: Iterable[str]) -> None:
        self.producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap,
            acks="all",
            enable_idempotence=True,
            max_batch_size=BATCH_BYTES,
        )
        self._consumer = AIOKafkaConsumer(
            *sources,
            bootstrap_servers=bootstrap,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=50,
            session_timeout_ms=6_000,
            heartbeat_interval_ms=400,
        )
        self.open: dict[TopicPartition, dict[int, None]] = defaultdict(dict)
        """Offsets that may not be committed yet."""
        self._next: dict[TopicPartition, int] = {}

    async def run(self, handle: Handle) -> None:
        """Hand each partition's records over as they come, for ever."""
        await self.producer.start()
        await self._consumer.start()
        while not self._consumer.assignment():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        print("ready", flush=True)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._fetch(handle))
            group.create_task(self._commit())

    async def send_batch(
        self, topic: str, partition: int, records: Sequence[tuple[bytes, bytes]]
    ) -> list[asyncio.Future[Any]]:
        """Send keys and values as one batch (or a few); what it gives is done once acknowledged."""
        acks, builder = [], self.producer.create_batch()
        for key, value in records:
            if builder.append(key=key, value=value, timestamp=None) is None:
                acks.append(await self.producer.send_batch(builder, topic, partition=partition))
                builder = self.producer.create_batch()
                builder.append(key=key, value=value, timestamp=None)
        acks.append(await self.producer.send_batch(builder, topic, partition=partition))
        return acks

    def close(self, places: Iterable[Place]) -> None:
        """These have been worked off, and what came of them is safe."""
        for tp, offset in places:
            self.open[tp].pop(offset, None)

    def close_when(self, acks: Sequence[asyncio.Future[Any]], places: Sequence[Place]) -> None:
        """`close` once the last batch is acknowledged: a partition's batches are so in order."""

        def acknowledged(ack: asyncio.Future[Any]) -> None:
            if not ack.cancelled() and ack.exception() is None:
                self.close(places)

        acks[-1].add_done_callback(acknowledged)

    async def _fetch(self, handle: Handle) -> None:
        while True:
            for tp, records in (await self._consumer.getmany(timeout_ms=500)).items():
                self.open[tp].update(dict.fromkeys(record.offset for record in records))
                self._next[tp] = records[-1].offset + 1
                await handle(tp, records)

    async def _commit(self) -> None:
        committed: dict[TopicPartition, int] = {}
        while True:
            await asyncio.sleep(COMMIT_S)
            now = {tp: next(iter(self.open[tp]), end) for tp, end in self._next.items()}
            if moved := {tp: o for tp, o in now.items() if committed.get(tp) != o}:
                await self._consumer.commit(moved)
                committed |= moved
