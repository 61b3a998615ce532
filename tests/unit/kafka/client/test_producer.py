"""What a producer hands to aiokafka, without a broker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka import TopicPartition as KafkaTopicPartition
from aiokafka.structs import PartitionMetadata

from anabranch.config.settings import KafkaConfig
from anabranch.kafka.client.batching import Batching
from anabranch.kafka.client.producer import KafkaProducer

TOPIC = "t"


@pytest.fixture
async def client() -> AsyncIterator[AIOKafkaProducer]:
    """Not started: it knows two partitions, and what it is given waits."""
    client = AIOKafkaProducer(enable_idempotence=True)
    client.client.cluster._partitions = {
        TOPIC: {n: PartitionMetadata(TOPIC, n, 1, [1], [1], 0) for n in range(2)}
    }
    yield client
    client._closed = True  # there is nothing to close


@pytest.fixture
async def producer(client: AIOKafkaProducer) -> KafkaProducer:
    producer = KafkaProducer("p", KafkaConfig(), {})
    producer._client = client
    producer._batching = Batching(client, 1.0)
    return producer


async def test_no_set_of_all_partitions_is_made_for_a_record(
    client: Any, producer: KafkaProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(topic: str) -> None:
        raise AssertionError(f"all partitions of {topic} were asked for")

    monkeypatch.setattr(client.client.cluster, "partitions_for_topic", refuse)
    await producer.send(TOPIC, b"value", partition=1, headers=(("name", b"content"),))
    [batch] = client._message_accumulator._batches[KafkaTopicPartition(TOPIC, 1)]
    assert batch.record_count == 1
