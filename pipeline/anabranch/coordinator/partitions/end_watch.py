"""Looks where the partitions of `queries` end: what comes later was asked later."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from anabranch.coordinator.query.brain import Brain
from anabranch.coordinator.query.partition import QueryPartition
from anabranch.errors import BrokerUnavailable
from anabranch.kafka.transport import Reader, TopicPartition
from anabranch.runtime.supervisor import Stage

__all__ = ["EndWatch"]

_INTERVAL_S: Final = 1.0


class EndWatch:
    """Tells the partitions that are ours, whose stamps are a broker's, each second.

    Args:
        reader: asked for ends only.
        partitions: by number; followed as it changes.
    """

    def __init__(
        self, brain: Brain, reader: Reader, partitions: Mapping[int, QueryPartition]
    ) -> None:
        self._brain = brain
        self._reader = reader
        self._partitions = partitions

    async def run(self, stage: Stage) -> None:
        """Stage: one look a second."""
        topic = self._brain.topics.queries
        while True:
            stage.beat()
            await asyncio.sleep(_INTERVAL_S)
            watched = {
                TopicPartition(topic, number): partition.stamps
                for number, partition in self._partitions.items()
                if partition.stamps.trusted
            }
            before_ms = self._brain.now_ms()
            try:
                ends = await self._reader.ends(watched.keys())
            except BrokerUnavailable:
                continue  # others say so
            for tp, end in ends.items():
                watched[tp].ended(end, before_ms)
