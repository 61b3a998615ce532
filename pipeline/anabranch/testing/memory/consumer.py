"""The in-memory broker's group member: joins, heartbeats and rebalances as aiokafka's does.

What aiokafka does and this repeats (read in 0.14): the revoked-callback gets the whole old
assignment (nothing at the first join) while heartbeats go on and the old generation may still
commit; heartbeats stop before the join and start again only after the assigned-callback returned;
a new assignment has no pauses, and positions at what is committed, or else the beginning; records
may be fetched as soon as the assigned-callback *awaits* something; stopping calls no callback.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Mapping, Sequence
from functools import partial

from anabranch.errors import GenerationLost
from anabranch.kafka.transport import Committed, RebalanceListener, Record, TopicPartition
from anabranch.testing.memory.cluster import Cluster
from anabranch.testing.memory.group import Joined
from anabranch.testing.memory.network import Process
from anabranch.testing.memory.reader import Fetcher

__all__ = ["MemoryConsumer"]


class MemoryConsumer:
    """A member of a consumer group."""

    def __init__(
        self,
        cluster: Cluster,
        process: Process,
        name: str,
        group: str,
        topics: Sequence[str],
        listener: RebalanceListener,
    ) -> None:
        self._cluster = cluster
        self._process = process
        self._name = name
        self._group = cluster.group(group)
        self._topics = tuple(topics)
        self._listener = listener
        self._fetcher = Fetcher(cluster, process)
        self._heartbeat_s = cluster.kafka.heartbeat_interval_ms / 1000.0
        self._member: str | None = None
        self._generation = -1
        self._rejoin = asyncio.Event()
        self._assigned = asyncio.Event()
        self._idle = asyncio.Event()
        """Set while no callback runs."""
        self._idle.set()
        self._main: asyncio.Task[None] | None = None
        self._beating: asyncio.Task[None] | None = None
        self._failure: Exception | None = None

    async def start(self) -> None:
        """Join the group; returns once a first assignment came, or never can: `fetch` says why."""
        self._process.check()
        for topic in self._topics:
            self._cluster.topic(topic)
        self._main = asyncio.create_task(self._run(), name=f"member {self._name}")
        self._process.thread(self._main)
        await self._assigned.wait()

    async def stop(self) -> None:
        self._process.check()
        await self._idle.wait()
        if self._main is not None:
            self._main.cancel()
            await asyncio.wait([self._main])
        self._fetcher.assign({})
        if (member := self._member) is not None:
            self._forget(member)
            await self._process.call(lambda: self._group.leave(member))

    async def fetch(self, timeout_ms: int) -> Mapping[TopicPartition, Sequence[Record]]:
        self._raise_failure()
        found = await self._fetcher.fetch(timeout_ms)
        self._raise_failure()
        return found

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        self._fetcher.pause(partitions, True)

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        self._fetcher.pause(partitions, False)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._fetcher.seek(partition, offset)

    async def commit(self, offsets: Mapping[TopicPartition, Committed]) -> None:
        member, generation = self._member, self._generation
        if member is None:
            raise GenerationLost(f"{self._name} is not in the group")
        try:
            await self._process.call(lambda: self._group.commit(member, generation, offsets))
        except GenerationLost:
            self._forget(member)
            raise

    async def prove(self) -> None:
        member = self._member
        if member is None:
            raise GenerationLost(f"{self._name} is not in the group")
        try:
            if not await self._process.call(partial(self._group.heartbeat, member)):
                self._rejoin.set()
        except GenerationLost:
            self._forget(member)
            raise

    async def committed(
        self, partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, Committed]:
        known = self._group.committed
        return await self._process.call(lambda: {at: known[at] for at in partitions if at in known})

    async def _run(self) -> None:
        """The member's life; the error that ends it is raised by `fetch`."""
        try:
            while True:
                await self._rebalance()
                await self._rejoin.wait()
        except Exception as error:
            self._failure = error
        finally:
            self._stop_beating()
            self._assigned.set()
            self._fetcher.seen.set()

    async def _rebalance(self) -> None:
        self._fetcher.held = True
        await self._call_back(self._listener.revoked(self._fetcher.partitions))
        self._stop_beating()
        joined = await self._join()
        self._rejoin.clear()
        self._generation = joined.generation
        self._fetcher.assign({at: self._resting_place(at) for at in joined.partitions})
        self._assigned.set()
        await self._call_back(self._listener.assigned(joined.partitions))
        self._beating = asyncio.create_task(self._beat(), name=f"heartbeat {self._name}")
        self._process.thread(self._beating)

    def _resting_place(self, at: TopicPartition) -> int:
        committed = self._group.committed.get(at)
        return self._cluster.log(at).start if committed is None else committed.offset

    async def _join(self) -> Joined:
        if self._member is None:
            if self._assigned.is_set():
                raise GenerationLost("the group went on without this member")
            self._member = await self._process.call(
                lambda: self._group.enter(self._name, self._topics)
            )
        joining = await self._process.call(partial(self._group.join, self._member))
        joined = await joining
        await asyncio.sleep(self._process.network.delay())
        return joined

    async def _beat(self) -> None:
        while (member := self._member) is not None:
            await asyncio.sleep(self._heartbeat_s)
            try:
                if not await self._process.call(partial(self._group.heartbeat, member)):
                    self._rejoin.set()
            except GenerationLost:
                self._forget(member)

    def _stop_beating(self) -> None:
        if self._beating is not None:
            self._beating.cancel()

    def _forget(self, member: str | None) -> None:
        """The group goes on without us: whatever we are next is somebody new."""
        if self._member == member:
            self._member, self._generation = None, -1
            self._rejoin.set()

    async def _call_back(self, callback: Awaitable[None]) -> None:
        self._idle.clear()
        try:
            await callback
        finally:
            self._idle.set()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
