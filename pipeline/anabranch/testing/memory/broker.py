"""A Kafka-like broker in memory: the same protocols, in one process, under any clock.

    async def scenario() -> None:
        broker = MemoryBroker(Network(seed=7, latency_ms=(0.2, 3.0)))
        one, two = broker.transport("c1"), broker.transport("c2")
        ...                # hand them to coordinators, workers, clients
        broker.kill("c1")  # and see what the others make of it

A transport is a process: what was made from it dies with it. Delays, stalls and what a kill
leaves of sends on their way are drawn from the network's seed, so under virtual time a seed
repeats a run exactly.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from anabranch.config.settings import KafkaConfig
from anabranch.kafka.transport import (
    Committed,
    IsolationLevel,
    RebalanceListener,
    Record,
    TopicPartition,
    TopicState,
)
from anabranch.runtime.clock import Clock
from anabranch.testing.memory.cluster import Cluster
from anabranch.testing.memory.consumer import MemoryConsumer
from anabranch.testing.memory.network import Network, Process
from anabranch.testing.memory.producer import MemoryProducer
from anabranch.testing.memory.reader import MemoryReader
from anabranch.testing.memory.transactions import MemoryTransactionalProducer
from anabranch.testing.virtual_time import VirtualClock

__all__ = ["MemoryBroker", "MemoryTransport"]


class MemoryBroker(Cluster):
    """Topics, groups, and the processes that use them.

    Args:
        network: how long things take; by default half a millisecond each way.
        clock: the broker's own, which stamps records (LogAppendTime).
        kafka: session, heartbeat and rebalance timeouts of every group member.
        default_partitions: of topics made on first use; 0 makes a missing topic an error.
    """

    def __init__(
        self,
        network: Network | None = None,
        *,
        clock: Clock | None = None,
        kafka: KafkaConfig | None = None,
        default_partitions: int = 4,
    ) -> None:
        super().__init__(clock or VirtualClock(), kafka or KafkaConfig(), default_partitions)
        self.network = network or Network()
        self._processes: dict[str, Process] = {}

    def transport(self, process: str = "main", clock: Clock | None = None) -> MemoryTransport:
        """Clients of the process of that name; a killed one starts anew.

        Args:
            clock: the process's own, which stamps records of CreateTime topics.
        """
        present = self._processes.get(process)
        if present is None or not present.alive:
            present = Process(process, self.network, clock or VirtualClock())
            self._processes[process] = present
        return MemoryTransport(self, present)

    def kill(self, process: str) -> None:
        """As `kill -9`: at once its clients do nothing any more, and raise CancelledError.

        Of what it had sent, a part arrives; its groups notice when its session times out. Tasks
        that are not the clients' own are the caller's to cancel.
        """
        self._processes[process].kill()

    def cut(self, process: str, seconds: float) -> None:
        """Cut a process from the network, in both directions, for that long."""
        self._processes[process].cut(seconds)

    def records(self, topic: str) -> list[Record]:
        """Everything that can be read of a topic now, by partition and offset."""
        if topic not in self._topics:
            return []
        return [
            record
            for log in self._topics[topic].logs
            for record in log.read(log.start, log.stable_end)
        ]

    def committed(self, group: str) -> dict[TopicPartition, Committed]:
        """What a group has committed."""
        return dict(self.group(group).committed)


class MemoryTransport:
    """Clients of one process."""

    def __init__(self, cluster: Cluster, process: Process) -> None:
        self._cluster = cluster
        self._process = process

    def producer(self, name: str) -> MemoryProducer:
        return MemoryProducer(self._cluster, self._process)

    def transactional(self, name: str, transactional_id: str) -> MemoryTransactionalProducer:
        return MemoryTransactionalProducer(self._cluster, self._process, transactional_id)

    def consumer(
        self, name: str, group: str, topics: Sequence[str], listener: RebalanceListener
    ) -> MemoryConsumer:
        return MemoryConsumer(self._cluster, self._process, name, group, topics, listener)

    def reader(self, name: str, isolation: IsolationLevel = "read_committed") -> MemoryReader:
        return MemoryReader(self._cluster, self._process)

    def admin(self) -> MemoryAdmin:
        return MemoryAdmin(self._cluster, self._process)


class MemoryAdmin:
    """Topic administration."""

    def __init__(self, cluster: Cluster, process: Process) -> None:
        self._cluster = cluster
        self._process = process

    async def start(self) -> None:
        self._process.check()

    async def stop(self) -> None:
        self._process.check()

    async def topics(self, names: Collection[str]) -> dict[str, TopicState]:
        found = await self._process.call(lambda: [(n, self._cluster.state(n)) for n in names])
        return {name: state for name, state in found if state is not None}

    async def create(self, topics: Mapping[str, TopicState], replication: int) -> None:
        def effect() -> None:
            for name, state in topics.items():
                self._cluster.create(name, state.partitions, state.settings)

        await self._process.call(effect)
