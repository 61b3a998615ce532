"""Produce requests with batches as they are: what no client library would send."""

from __future__ import annotations

import asyncio

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import NotLeaderForPartitionError, for_code
from aiokafka.protocol.produce import ProduceRequest

from anabranch.kafka.transport import TopicPartition

__all__ = ["RawProducer"]


class RawProducer:
    """Sends one batch at a time; an async context manager."""

    def __init__(self, bootstrap: str) -> None:
        self._client = AIOKafkaClient(bootstrap_servers=bootstrap)

    async def __aenter__(self) -> RawProducer:
        await self._client.bootstrap()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def send(self, at: TopicPartition, batch: bytes) -> int:
        """The batch's base offset.

        Raises:
            KafkaError: the broker refuses it.
        """
        await self._client._wait_on_metadata(at.topic)
        async with asyncio.timeout(30):
            while True:
                leader = self._client.cluster.leader_for_partition(at)
                request = ProduceRequest(None, -1, 10_000, [(at.topic, [(at.partition, batch)])])
                response = await self._client.send(leader, request)
                [(_, [(_, code, offset, *_)])] = response.topics
                if not code:
                    return int(offset)
                error = for_code(code)
                if error is not NotLeaderForPartitionError:
                    raise error()
                await self._client.force_metadata_update()  # it is new
