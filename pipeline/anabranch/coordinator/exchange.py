"""Rule 6: every instance learns the same, from `telemetry`: its own batches out, all others in.

On a producer of its own (one produce request at a time per broker and producer), so that
telemetry never slows an answer; if it cannot be sent it is counted and dropped.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Final

from msgspec import structs

from anabranch.containment import contained, ignore
from anabranch.coordinator.brain import Brain
from anabranch.errors import BrokerError
from anabranch.events import MAX_VALUE_BYTES, decode, encode
from anabranch.kafka.ranges import read_ranges
from anabranch.kafka.transport import Producer, Reader, Record, TopicPartition
from anabranch.learn.records import TelemetryBatch
from anabranch.supervise import Stage

__all__ = ["Exchange"]

log = logging.getLogger(__name__)

_INTERVAL_MS: Final = 1_000
_REPLAY_RECORDS: Final = 3_000
"""Batches of the recent past that a new instance learns from: about five minutes of ten."""


class Exchange:
    """Shares what this coordinator saw, and learns what others did.

    Args:
        producer: used for nothing else.
    """

    def __init__(self, brain: Brain, producer: Producer, reader: Reader) -> None:
        self._brain = brain
        self._producer = producer
        self._reader = reader
        self._topic = brain.topics.telemetry

    async def start(self) -> None:
        """Connect, and learn from the recent past: decide like one's peers from the start."""
        await self._producer.start()
        await self._reader.start()
        count = await self._reader.partitions(self._topic)
        partitions = [TopicPartition(self._topic, n) for n in range(count)]
        beginnings = await self._reader.beginnings(partitions)
        ends = await self._reader.ends(partitions)
        past = {
            tp: range(max(beginnings[tp], end - _REPLAY_RECORDS), end) for tp, end in ends.items()
        }
        async for record in read_ranges(self._reader, past):
            self._replay(record)
        self._reader.assign(ends)

    async def stop(self) -> None:
        """Close; what was not sent is lost, and nothing else."""
        await self._reader.stop()
        await self._producer.stop()

    async def share(self, stage: Stage) -> None:
        """Stage: each second send what was seen, and in between learn from others."""
        clock = self._brain.now_ms
        next_ms = clock() + _INTERVAL_MS
        while True:
            stage.beat()
            wait_ms = max(1, min(_INTERVAL_MS, int(next_ms - clock())))
            for records in (await self._reader.fetch(wait_ms)).values():
                for record in records:
                    self._fold(record)
            if clock() >= next_ms:
                next_ms = clock() + _INTERVAL_MS
                await self._send()

    def _replay(self, record: Record) -> None:
        with contained(ignore):  # dead-lettered by whoever was there when it came
            self._brain.selector.telemetry.replay([decode(record.value, TelemetryBatch)])

    def _fold(self, record: Record) -> None:
        with contained(partial(self._brain.bury, record)):
            self._brain.selector.telemetry.fold(decode(record.value, TelemetryBatch))

    async def _send(self) -> None:
        with contained(self._lost):
            batch = self._brain.selector.telemetry.take_batch()
            if batch is not None:
                await self._produce(_fitting(batch))

    async def _produce(self, value: bytes) -> None:
        try:
            await self._producer.send_and_wait(self._topic, value)
        except BrokerError as error:
            self._lost(error)

    def _lost(self, error: Exception) -> None:
        self._brain.counters.telemetry_lost += 1
        log.warning("a batch of telemetry was not sent: %s", error)


def _fitting(batch: TelemetryBatch) -> bytes:
    """A batch as bytes, without the raw records if they do not fit.

    Raises:
        ValueError: the sums alone are too large: what was asked has very long names.
    """
    value = encode(batch)
    if len(value) > MAX_VALUE_BYTES:
        value = encode(structs.replace(batch, sampled=()))
    if len(value) > MAX_VALUE_BYTES:
        raise ValueError(f"it has {len(value):,} bytes, over {MAX_VALUE_BYTES:,}")
    return value
