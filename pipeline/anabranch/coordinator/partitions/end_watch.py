"""Looks where the partitions of `queries` end: what comes later was asked later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

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
        self,
        reader: Reader,
        topic: str,
        partitions: Mapping[int, QueryPartition],
        now_ms: Callable[[], float],
    ) -> None:
        self._reader = reader
        self._topic = topic
        self._now_ms = now_ms
        self._partitions = partitions

    async def run(self, stage: Stage) -> None:
        """Stage: one look a second."""
        while True:
            stage.beat()
            await asyncio.sleep(_INTERVAL_S)
            watched = {
                TopicPartition(self._topic, number): partition.progress.stamps
                for number, partition in self._partitions.items()
                if partition.progress.stamps.trusted
            }
            before_ms = self._now_ms()
            try:
                ends = await self._reader.ends(watched.keys())
            except BrokerUnavailable:
                continue  # others say so
            for tp, end in ends.items():
                watched[tp].saw_end(end, before_ms)
