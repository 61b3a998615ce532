"""A bare aiokafka relay: consume, produce the same bytes, commit what is acknowledged.

What Kafka and the client library cost by themselves, on the same terms as a coordinator:
acks=all, idempotence, a commit every 100 ms, uvloop.

    python relay.py BOOTSTRAP FROM:TO [FROM:TO ...]
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from anabranch.runtime.supervisor import until

COMMIT_S = 0.1


class Relay:
    """Moves records between topics, partition by partition."""

    def __init__(self, bootstrap: str, ways: dict[str, str]) -> None:
        self._ways = ways
        self._producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, max_batch_size=262_144
        )
        self._consumer = AIOKafkaConsumer(
            *ways,
            bootstrap_servers=bootstrap,
            group_id="relay-" + "-".join(ways),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=50,
        )
        self._open: dict[TopicPartition, dict[int, None]] = {}
        self._next: dict[TopicPartition, int] = {}

    async def run(self) -> None:
        await self._producer.start()
        await self._consumer.start()
        await until(self._consumer.assignment, every_s=0.05)
        print("ready", flush=True)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._relay())
            group.create_task(self._commit())

    async def _relay(self) -> None:
        while True:
            for tp, records in (await self._consumer.getmany(timeout_ms=500)).items():
                to, waiting = self._ways[tp.topic], self._open.setdefault(tp, {})
                for record in records:
                    waiting[record.offset] = None
                    sent = await self._producer.send(
                        to, record.value, key=record.key, partition=tp.partition
                    )
                    sent.add_done_callback(
                        lambda _, waiting=waiting, offset=record.offset: waiting.pop(offset)
                    )
                self._next[tp] = records[-1].offset + 1

    async def _commit(self) -> None:
        committed: dict[Any, int] = {}
        while True:
            await asyncio.sleep(COMMIT_S)
            now = {tp: next(iter(self._open[tp]), end) for tp, end in self._next.items()}
            if moved := {tp: o for tp, o in now.items() if committed.get(tp) != o}:
                await self._consumer.commit(moved)
                committed |= moved


async def main(bootstrap: str, ways: dict[str, str]) -> None:
    await Relay(bootstrap, ways).run()


if __name__ == "__main__":
    bootstrap, *ways = sys.argv[1:]
    uvloop.run(main(bootstrap, dict(way.split(":") for way in ways)))
