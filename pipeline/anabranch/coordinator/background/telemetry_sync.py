"""Rule 6: every instance learns the same, from `telemetry`: its own batches out, all others in.

On a producer of its own (one produce request at a time per broker and producer), so that
telemetry never slows an answer; if it cannot be sent it is counted and dropped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from anabranch.contract.codec import decode, encode
from anabranch.contract.telemetry import TelemetryBatch
from anabranch.coordinator.query.counters import Counters
from anabranch.coordinator.query.outbox import Outbox
from anabranch.errors import BrokerError
from anabranch.kafka.ranges import read_ranges
from anabranch.kafka.transport import Producer, Reader, Record, TopicPartition
from anabranch.kafka.turns import in_turns
from anabranch.learn.execution_telemetry import ExecutionTelemetryCollector
from anabranch.runtime.containment import contained, ignore
from anabranch.runtime.supervisor import Stage, signalled

__all__ = ["TelemetrySync"]

log = logging.getLogger(__name__)

_INTERVAL_S: Final = 1.0
_REPLAY_RECORDS: Final = 3_000
"""Batches of the recent past that a new instance learns from: about five minutes of ten."""
_PATIENCE_S: Final = 1.0
"""Longest time for which a start waits for the past; the rest is learned beside the work."""


class TelemetrySync:
    """Shares what this coordinator saw, and learns what others did.

    Args:
        producer: used for nothing else.
    """

    def __init__(
        self,
        telemetry: ExecutionTelemetryCollector,
        topic: str,
        producer: Producer,
        reader: Reader,
        outbox: Outbox,
        counters: Counters,
    ) -> None:
        self._telemetry = telemetry
        self._topic = topic
        self._producer = producer
        self._reader = reader
        self._outbox = outbox
        self._counters = counters
        self._past: Mapping[TopicPartition, range] = {}

    async def start(self) -> None:
        """Connect, and place the reader where the recent past begins."""
        await self._producer.start()
        await self._reader.start()
        count = await self._reader.partitions(self._topic)
        partitions = [TopicPartition(self._topic, n) for n in range(count)]
        beginnings = await self._reader.beginnings(partitions)
        ends = await self._reader.ends(partitions)
        self._past = {
            tp: range(max(beginnings[tp], end - _REPLAY_RECORDS), end) for tp, end in ends.items()
        }

    async def replay(self, beat: Callable[[], None]) -> None:
        """Learn from the recent past: decide like one's peers from the start.

        To be called once it is known which layers are announced: nothing is learned of others.

        Args:
            beat: called now and then.
        """
        async for record in read_ranges(self._reader, self._past, beat):
            self._replay(record)
        self._reader.assign({tp: offsets.stop for tp, offsets in self._past.items()})

    async def stop(self) -> None:
        """Close; what was not sent is lost, and nothing else."""
        await self._reader.stop()
        await self._producer.stop()

    async def run(self, announced: asyncio.Event, learned: asyncio.Event, stage: Stage) -> None:
        """Stage: learn from the past once layers are announced, say so, and share from then on."""
        while not await signalled(announced):
            stage.beat()
        patience = asyncio.get_running_loop().call_later(_PATIENCE_S, learned.set)
        with contained(ignore):
            await self.replay(stage.beat)
        patience.cancel()
        learned.set()
        await self.share(stage)

    async def share(self, stage: Stage) -> None:
        """Stage: each second send what was seen, and in between learn from others."""
        now_s = asyncio.get_running_loop().time
        next_s = now_s() + _INTERVAL_S
        while True:
            stage.beat()
            wait_ms = max(1, int((next_s - now_s()) * 1_000))
            async for _, record in in_turns(await self._reader.fetch(wait_ms)):
                self._fold(record)
            if now_s() >= next_s:
                next_s = now_s() + _INTERVAL_S
                await self._send()

    def _replay(self, record: Record) -> None:
        with contained(ignore):  # dead-lettered by whoever was there when it came
            self._telemetry.replay([decode(record.value, TelemetryBatch)])

    def _fold(self, record: Record) -> None:
        with contained(partial(self._outbox.unreadable, record)):
            self._telemetry.fold(decode(record.value, TelemetryBatch))

    async def _send(self) -> None:
        with contained(self._lost):
            batch = self._telemetry.take_batch()
            if batch is not None:
                await self._produce(encode(batch))

    async def _produce(self, value: bytes) -> None:
        try:
            await self._producer.send_and_wait(self._topic, value)
        except BrokerError as error:
            self._lost(error)

    def _lost(self, error: Exception) -> None:
        self._counters.telemetry_lost += 1
        log.warning("a batch of telemetry was not sent: %s", error)
