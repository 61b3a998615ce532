"""Rule 6: every instance learns the same, from `telemetry`: its own batches out, all others in.

On a producer of its own (one produce request at a time per broker and producer), so that
telemetry never slows an answer; if it cannot be sent it is counted and dropped.
"""

from __future__ import annotations

import logging
from typing import Final

from anabranch.coordinator.brain import Brain
from anabranch.errors import BrokerError, DecodeError
from anabranch.events import decode, encode
from anabranch.kafka.transport import Producer, Reader, Record, TopicPartition
from anabranch.learn.records import TelemetryBatch
from anabranch.supervise import Stage

__all__ = ["Exchange"]

log = logging.getLogger(__name__)

_INTERVAL_MS: Final = 1_000
_REPLAY_RECORDS: Final = 3_000
"""Batches of the recent past that a new instance learns from: about five minutes of ten."""
_REPLAY_FETCH_MS: Final = 100


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
        self._reader.assign({tp: max(beginnings[tp], ends[tp] - _REPLAY_RECORDS) for tp in ends})
        past: list[TelemetryBatch] = []
        while any(self._reader.position(tp) < end for tp, end in ends.items()):
            batches = await self._reader.fetch(_REPLAY_FETCH_MS)
            past += filter(None, map(_read, (r for records in batches.values() for r in records)))
        self._brain.selector.telemetry.replay(past)

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
                    if (batch := _read(record)) is not None:
                        self._brain.selector.telemetry.fold(batch)
            if clock() >= next_ms:
                next_ms = clock() + _INTERVAL_MS
                await self._send()

    async def _send(self) -> None:
        batch = self._brain.selector.telemetry.take_batch()
        if batch is None:
            return
        try:
            await self._producer.send_and_wait(self._topic, encode(batch))
        except BrokerError as error:
            self._brain.counters.telemetry_lost += 1
            log.warning("a batch of telemetry was not sent: %s", error)


def _read(record: Record) -> TelemetryBatch | None:
    """A batch; None if it is none: what teaches nothing is no dead letter."""
    try:
        return decode(record.value, TelemetryBatch)
    except DecodeError:
        return None
