"""Reading from the in-memory broker: what a client is assigned, and what it can already see."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence

from anabranch.errors import BrokerError
from anabranch.kafka.transport import Record, TopicPartition
from anabranch.testing.memory.cluster import Cluster
from anabranch.testing.memory.log import Log
from anabranch.testing.memory.network import Process

__all__ = ["Fetcher", "MemoryReader"]

_MOST = 500
"""Records of a partition in one fetch."""


class _Cursor:
    """A client's place in one partition. An append is seen after the network's delay."""

    def __init__(self, log: Log, position: int, process: Process, seen: asyncio.Event) -> None:
        self.log = log
        self.paused = False
        self._horizon = 0
        self._process = process
        self._seen = seen
        self._looking = False
        log.watchers[self._look] = None
        self.seek(position)

    def seek(self, position: int) -> None:
        self.position = position
        if self.log.stable_end != position:
            self._look()

    def close(self) -> None:
        self.log.watchers.pop(self._look, None)

    def take(self) -> list[Record]:
        """What can be seen and was not taken yet.

        Where that is gone reading goes on at the beginning (`auto.offset.reset=earliest`).
        """
        log = self.log
        if not log.start <= self.position <= log.end:
            self.position = log.start
        if self._horizon <= self.position:
            return []
        end = min(self._horizon, log.stable_end, self.position + _MOST)
        records = log.read(self.position, end)
        self.position = max(self.position, end)
        return records

    def _look(self) -> None:
        if not self._looking:
            self._looking = True
            self._process.after_delay(self._see)

    def _see(self) -> None:
        self._looking = False
        self._horizon = self.log.stable_end
        self._seen.set()


class Fetcher:
    """Positions and pauses of one client, and waiting for what comes."""

    def __init__(self, cluster: Cluster, process: Process) -> None:
        self._cluster = cluster
        self._process = process
        self._cursors: dict[TopicPartition, _Cursor] = {}
        self.seen = asyncio.Event()
        """Set when something may have changed; woken by appends, resumes and assignments."""
        self._alarm: asyncio.TimerHandle | None = None
        self.held = False
        """During a rebalance nothing is handed out, until the next `assign`."""

    @property
    def partitions(self) -> tuple[TopicPartition, ...]:
        return tuple(self._cursors)

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        """Read exactly these partitions, none paused."""
        for cursor in self._cursors.values():
            cursor.close()
        self._cursors = {
            at: _Cursor(self._cluster.log(at), position, self._process, self.seen)
            for at, position in positions.items()
        }
        self.held = False
        self.seen.set()

    def position(self, partition: TopicPartition) -> int:
        """
        Raises:
            BrokerError: the partition is not assigned.
        """
        try:
            return self._cursors[partition].position
        except KeyError:
            raise BrokerError(f"{partition} is not assigned") from None

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Read on from there; nothing happens if the partition is not assigned any more."""
        if partition in self._cursors:
            self._cursors[partition].seek(offset)
            self.seen.set()

    def pause(self, partitions: Collection[TopicPartition], paused: bool) -> None:
        """Hand out nothing of these (or again); those not assigned any more are left alone."""
        for partition in partitions:
            if partition in self._cursors:
                self._cursors[partition].paused = paused
        self.seen.set()

    async def fetch(self, timeout_ms: int) -> Mapping[TopicPartition, Sequence[Record]]:
        """What can be seen, or what comes within `timeout_ms`."""
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + timeout_ms / 1000.0
        while True:
            self._process.check()
            self.seen.clear()
            if (found := self.take()) or loop.time() >= give_up_s:
                return found
            if self._alarm is None or self._alarm.when() > give_up_s:
                self._alarm = loop.call_at(give_up_s, self._ring)
            await self.seen.wait()

    def _ring(self) -> None:
        """One timer serves many fetches, as most are over before it; to look once more is free."""
        self._alarm = None
        self.seen.set()

    def take(self) -> dict[TopicPartition, Sequence[Record]]:
        """What can be seen of every partition that is not paused."""
        return dict(self._take())

    def _take(self) -> Iterator[tuple[TopicPartition, Sequence[Record]]]:
        for partition, cursor in self._cursors.items():
            if not self.held and not cursor.paused and (records := cursor.take()):
                yield partition, records


class MemoryReader:
    """The in-memory broker's group-less reader; always read_committed."""

    def __init__(self, cluster: Cluster, process: Process) -> None:
        self._cluster = cluster
        self._process = process
        self._fetcher = Fetcher(cluster, process)

    async def start(self) -> None:
        self._process.check()

    async def stop(self) -> None:
        self._process.check()
        self._fetcher.assign({})

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        self._process.check()
        self._fetcher.assign(positions)

    async def fetch(self, timeout_ms: int) -> Mapping[TopicPartition, Sequence[Record]]:
        return await self._fetcher.fetch(timeout_ms)

    def position(self, partition: TopicPartition) -> int:
        return self._fetcher.position(partition)

    async def beginnings(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        return await self._process.call(
            lambda: {at: self._cluster.log(at).start for at in partitions}
        )

    async def ends(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        return await self._process.call(
            lambda: {at: self._cluster.log(at).stable_end for at in partitions}
        )

    async def partitions(self, topic: str) -> int:
        return await self._process.call(lambda: self._cluster.partitions(topic))
