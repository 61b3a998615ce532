"""What a client knows of topics."""

from __future__ import annotations

from aiokafka.client import AIOKafkaClient

from anabranch.errors import BrokerUnavailable
from anabranch.kafka.client.failures import bounded

__all__ = ["count_partitions"]


async def count_partitions(client: AIOKafkaClient, topic: str, timeout_ms: int) -> int:
    """How many partitions a topic has, asking the broker if it is not known; 0 if it is not there.

    Raises:
        BrokerUnavailable: nobody answers.
    """
    # Twice: a request under way may have been made before the topic was added to it.
    for _ in range(2):
        if client.cluster.partitions_for_topic(topic) is not None:
            break
        client.add_topic(topic)
        if not await bounded(client.force_metadata_update(), timeout_ms, f"looking up {topic}"):
            raise BrokerUnavailable(f"looking up {topic}: nobody answers")
    return len(client.cluster.partitions_for_topic(topic) or ())
