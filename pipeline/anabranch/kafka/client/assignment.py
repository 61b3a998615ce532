"""Our assignor in aiokafka's shape: the instance's name rides in the member's metadata."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import (
    ConsumerProtocolMemberAssignment,
    ConsumerProtocolMemberMetadata,
)

from anabranch.kafka.assignor import assign

__all__ = ["assignor_for"]


class _ByName(AbstractPartitionAssignor):
    """Partition i of every topic goes to the same member, chosen by the members' names."""

    name = "anabranch-rendezvous"
    instance = ""

    @classmethod
    def assign(
        cls, cluster: ClusterMetadata, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        topics = sorted({topic for member in members.values() for topic in member.subscription})
        counts = {topic: len(cluster.partitions_for_topic(topic) or ()) for topic in topics}
        named = _distinct({id_: _name_of(member) for id_, member in members.items()})
        owned = assign(max(counts.values(), default=0), sorted(named))
        return {
            id_: ConsumerProtocolMemberAssignment(
                0,
                [
                    (topic, [n for n in owned[name] if n < counts[topic]])
                    for topic in members[id_].subscription
                ],
                b"",
            )
            for name, id_ in named.items()
        }

    @classmethod
    def metadata(cls, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        return ConsumerProtocolMemberMetadata(0, sorted(topics), cls.instance.encode())

    @classmethod
    def on_assignment(cls, assignment: ConsumerProtocolMemberAssignment) -> None: ...


def assignor_for(instance: str) -> type[AbstractPartitionAssignor]:
    """An assignor class for one consumer; aiokafka keeps assignors as classes."""
    return type("ByName", (_ByName,), {"instance": instance})


def _name_of(member: ConsumerProtocolMemberMetadata) -> str:
    return (member.user_data or b"").decode(errors="replace")


def _distinct(names: Mapping[str, str]) -> dict[str, str]:
    """Member id by name; of two with one name (a zombie and its successor) one goes by its id."""
    named: dict[str, str] = {}
    for id_ in sorted(names):
        named[id_ if names[id_] in named else names[id_]] = id_
    return named
