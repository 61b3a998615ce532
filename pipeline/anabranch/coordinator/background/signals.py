"""Follows `health` and `control`: who can be asked, and what is to be forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final

from anabranch.coordinator.background.group_watch import GroupWatch
from anabranch.coordinator.background.worker_crashes import WorkerCrashes
from anabranch.coordinator.query.invalidations import Invalidations
from anabranch.coordinator.query.outbox import Outbox
from anabranch.dispatch.layer_registry import LayerRegistry
from anabranch.kafka.topics import Topics
from anabranch.kafka.transport import Reader, Record, TopicPartition
from anabranch.kafka.turns import in_turns
from anabranch.runtime.containment import contained, ignore
from anabranch.runtime.heartbeat import Heartbeat
from anabranch.runtime.supervisor import Stage

__all__ = ["Signals"]

_FETCH_MS: Final = 500


class Signals:
    """Reads both topics, to their ends before queries resume, and from there on.

    Args:
        flush: sends what was decided; called between turns.
        announced: called after each fetch: queries may wait for layers.
    """

    def __init__(
        self,
        reader: Reader,
        topics: Topics,
        heartbeat: Heartbeat,
        registry: LayerRegistry,
        invalidations: Invalidations,
        groups: GroupWatch,
        crashes: WorkerCrashes,
        outbox: Outbox,
        flush: Callable[[], Awaitable[None]],
        announced: Callable[[], Awaitable[None]],
        now_ms: Callable[[], float],
    ) -> None:
        self.caught_up = asyncio.Event()
        """Set once both were read to their ends, and each group was looked up."""
        self._reader = reader
        self._health = TopicPartition(topics.health, 0)
        self._control = TopicPartition(topics.control, 0)
        self._heartbeat = heartbeat
        self._registry = registry
        self._invalidations = invalidations
        self._groups = groups
        self._crashes = crashes
        self._outbox = outbox
        self._flush = flush
        self._announced = announced
        self._now_ms = now_ms

    async def start(self) -> None:
        """Place the reader where both begin."""
        self._reader.assign(await self._reader.beginnings([self._health, self._control]))

    async def run(self, stage: Stage) -> None:
        """Stage: follow both."""
        ends = await self._reader.ends([self._health, self._control])
        while True:
            stage.beat()
            batches = await self._reader.fetch(_FETCH_MS)
            async for tp, record in in_turns(batches, self._flush):
                self._learn(tp, record)
            self._groups.look()
            await self._announced()
            with contained(ignore):
                self._crashes.look(self._now_ms())
            self._invalidations.follow(self._reader.position(self._control))
            if not self.caught_up.is_set():
                if not batches:  # a log may have lost what was to come
                    ends = await self._reader.ends([self._health, self._control])
                if self._is_caught_up(ends):
                    self.caught_up.set()
            await self._flush()

    def _learn(self, tp: TopicPartition, record: Record) -> None:
        with contained(partial(self._outbox.unreadable, record)):
            if tp == self._health:
                self._heartbeat.read_back(record)
                self._registry.learn(record, self._now_ms())
            else:
                self._invalidations.obey(record)

    def _is_caught_up(self, ends: Mapping[TopicPartition, int]) -> bool:
        """Whether both were read, and of each group is known whether it can be asked."""
        read = all(self._reader.position(tp) >= end for tp, end in ends.items())
        return read and self._groups.settled
