"""What a broker keeps: topics, groups and transactional ids, as every client finds them."""

from __future__ import annotations

from collections.abc import Mapping

from anabranch.config.settings import KafkaConfig
from anabranch.errors import TopicError
from anabranch.kafka.transport import TopicPartition, TopicState
from anabranch.runtime.clock import Clock
from anabranch.testing.memory.group import Group
from anabranch.testing.memory.log import Log, Topic
from anabranch.testing.memory.transactional_id import TransactionalId

__all__ = ["Cluster"]


class Cluster:
    """The broker's state. Methods are what a request does, at once.

    Args:
        clock: stamps records (LogAppendTime).
        kafka: session, heartbeat and rebalance timeouts of every group member.
        default_partitions: of topics made on first use; 0 makes a missing topic an error.
    """

    def __init__(self, clock: Clock, kafka: KafkaConfig, default_partitions: int) -> None:
        self.kafka = kafka
        self._clock = clock
        self._default_partitions = default_partitions
        self._topics: dict[str, Topic] = {}
        self._groups: dict[str, Group] = {}
        self._transactional_ids: dict[str, TransactionalId] = {}

    def create(self, topic: str, partitions: int, settings: Mapping[str, str] = {}) -> None:
        """Create a topic; nothing happens if it exists."""
        if topic not in self._topics:
            self._topics[topic] = Topic(topic, partitions, dict(settings))

    def add_partitions(self, topic: str, partitions: int) -> None:
        """Grow a topic to that many partitions; groups that read it rebalance."""
        self._topics[topic].grow(partitions)
        for group in self._groups.values():
            if topic in group.topics():
                group.rebalance()

    def topic(self, name: str) -> Topic:
        """
        Raises:
            TopicError: there is no such topic, and none is made on first use.
        """
        if name not in self._topics:
            if not self._default_partitions:
                raise TopicError(f"there is no topic {name}")
            self.create(name, self._default_partitions)
        return self._topics[name]

    def log(self, partition: TopicPartition) -> Log:
        """
        Raises:
            TopicError: there is no such topic or partition.
        """
        return self.topic(partition[0]).log(partition[1])

    def partitions(self, topic: str) -> int:
        """As a client asks for it, which is a first use; 0 if there is no such topic."""
        return len(self.topic(topic).logs) if self._default_partitions else self.count(topic)

    def count(self, topic: str) -> int:
        """How many partitions a topic has; 0 if there is no such topic."""
        return len(self._topics[topic].logs) if topic in self._topics else 0

    def state(self, topic: str) -> TopicState | None:
        """A topic as an admin client sees it."""
        if topic not in self._topics:
            return None
        return TopicState(self.count(topic), dict(self._topics[topic].settings))

    def group(self, name: str) -> Group:
        """The consumer group of that name."""
        if name not in self._groups:
            self._groups[name] = Group(self.kafka, self.count)
        return self._groups[name]

    def transactional_id(self, name: str) -> TransactionalId:
        """The broker's state of a transactional id."""
        if name not in self._transactional_ids:
            timeout_s = self.kafka.session_timeout_ms / 1000.0
            self._transactional_ids[name] = TransactionalId(timeout_s)
        return self._transactional_ids[name]

    def stamp(self) -> int:
        """The broker's time, in whole epoch milliseconds."""
        return int(self._clock.time_ms())
