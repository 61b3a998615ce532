"""The broker's side of a consumer group: generations, the join barrier, sessions, commits.

Eager rebalances only, as aiokafka knows them: every change of membership makes all members
join again, and the next generation begins when all of them did (or their time is up).
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from anabranch.config.settings import KafkaConfig
from anabranch.errors import BrokerError, GenerationLost
from anabranch.kafka.assignor import assign
from anabranch.kafka.transport import Committed, TopicPartition

__all__ = ["MAX_METADATA_BYTES", "Group", "Joined"]

MAX_METADATA_BYTES: Final = 4_096
"""Kafka's default of `offset.metadata.max.bytes`."""


class Joined(NamedTuple):
    """What a member learns when the barrier opens."""

    generation: int
    partitions: tuple[TopicPartition, ...]


class _Member:
    def __init__(self, name: str, topics: Sequence[str], now: float) -> None:
        self.name = name
        self.topics = topics
        self.last_seen = now
        self.joining: asyncio.Future[Joined] | None = None


class Group:
    """One consumer group. All methods are what a request does on the broker, at once."""

    def __init__(self, kafka: KafkaConfig, count: Callable[[str], int]) -> None:
        self.generation = 0
        self.committed: dict[TopicPartition, Committed] = {}
        self._session_s = kafka.session_timeout_ms / 1000.0
        self._rebalance_s = kafka.rebalance_timeout_ms / 1000.0
        self._count = count
        self._members: dict[str, _Member] = {}
        self._ids = itertools.count(1)
        self._barrier: asyncio.TimerHandle | None = None

    @property
    def rebalancing(self) -> bool:
        """Whether members have to join again."""
        return self._barrier is not None

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the members, in the order in which they came."""
        return tuple(member.name for member in self._members.values())

    def topics(self) -> set[str]:
        """What the members subscribe to."""
        return {topic for member in self._members.values() for topic in member.topics}

    def enter(self, name: str, topics: Sequence[str]) -> str:
        """A member's first request: it gets an id, which lives as long as its session."""
        member_id = f"{name}-{next(self._ids)}"
        self._members[member_id] = _Member(name, topics, _now())
        self._watch(member_id)
        return member_id

    def join(self, member_id: str) -> asyncio.Future[Joined]:
        """Wait for the next generation.

        Raises:
            GenerationLost: the session ended meanwhile; enter again.
        """
        member = self._member(member_id)
        joining = member.joining = asyncio.get_running_loop().create_future()
        self.rebalance()
        self._complete_if_all_joined()
        return joining

    def heartbeat(self, member_id: str) -> bool:
        """Whether the member may go on as it is; if not it must join again.

        Raises:
            GenerationLost: the session ended meanwhile; enter again.
        """
        self._member(member_id).last_seen = _now()
        return not self.rebalancing

    def leave(self, member_id: str) -> None:
        """A member goes; nothing happens if it went before."""
        if self._members.pop(member_id, None) is None:
            return
        if self._members:
            self.rebalance()
        self._complete_if_all_joined()

    def commit(
        self, member_id: str, generation: int, offsets: Mapping[TopicPartition, Committed]
    ) -> None:
        """The present generation may commit, even while the next is being formed.

        Raises:
            GenerationLost: the member or its generation is of the past.
            BrokerError: the metadata are too large.
        """
        self._member(member_id)
        if generation != self.generation:
            raise GenerationLost(f"generation {generation} is over; it is {self.generation} now")
        self.put(offsets)

    def put(self, offsets: Mapping[TopicPartition, Committed]) -> None:
        """What a transaction commits, whoever is in the group.

        Raises:
            BrokerError: the metadata are too large.
        """
        for at, committed in offsets.items():
            if len(committed.metadata.encode()) > MAX_METADATA_BYTES:
                raise BrokerError(f"{at}: metadata of over {MAX_METADATA_BYTES:,} bytes")
        self.committed.update(
            (TopicPartition(*at), Committed(*committed)) for at, committed in offsets.items()
        )

    def rebalance(self) -> None:
        """Ask every member to join again, unless that was done already."""
        if not self.rebalancing:
            loop = asyncio.get_running_loop()
            self._barrier = loop.call_later(self._rebalance_s, self._complete)

    def _member(self, member_id: str) -> _Member:
        try:
            return self._members[member_id]
        except KeyError:
            raise GenerationLost(f"{member_id} is not in the group any more") from None

    def _complete_if_all_joined(self) -> None:
        if all(member.joining for member in self._members.values()):
            self._complete()

    def _complete(self) -> None:
        """Open the barrier; who has not joined is out."""
        if self._barrier is not None:
            self._barrier.cancel()
        self._barrier = None
        self._members = {id_: m for id_, m in self._members.items() if m.joining is not None}
        if not self._members:
            return
        self.generation += 1
        shares = self._shares()
        for member_id, member in self._members.items():
            joining, member.joining, member.last_seen = member.joining, None, _now()
            if joining is not None and not joining.done():
                joining.set_result(Joined(self.generation, shares[member_id]))

    def _shares(self) -> dict[str, tuple[TopicPartition, ...]]:
        """Partition i of all topics has one owner, a function of the members' names."""
        names = _distinct_names(self._members)
        topics = sorted(self.topics())
        owned = assign(max(map(self._count, topics), default=0), sorted(names))
        return {
            member_id: tuple(
                TopicPartition(topic, number)
                for topic in topics
                if topic in self._members[member_id].topics
                for number in owned[name]
                if number < self._count(topic)
            )
            for name, member_id in names.items()
        }

    def _watch(self, member_id: str) -> None:
        """End the member's session when nothing was heard of it for too long."""
        member = self._members.get(member_id)
        if member is None:
            return
        heard = member.last_seen if member.joining is None else _now()
        ends = heard + self._session_s
        if ends <= _now():
            self.leave(member_id)
        else:
            asyncio.get_running_loop().call_at(ends, self._watch, member_id)


def _distinct_names(members: Mapping[str, _Member]) -> dict[str, str]:
    """Member id by name; of two with one name (a zombie and its successor) one goes by its id."""
    names: dict[str, str] = {}
    for member_id, member in members.items():
        names[member_id if member.name in names else member.name] = member_id
    return names


def _now() -> float:
    return asyncio.get_running_loop().time()
