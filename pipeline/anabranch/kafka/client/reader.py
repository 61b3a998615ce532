"""Reading without a group."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaTopicPartition

from anabranch.config import KafkaConfig
from anabranch.errors import BrokerError
from anabranch.kafka.client.consumer import Batches, Fetching
from anabranch.kafka.client.failures import bounded, started
from anabranch.kafka.transport import IsolationLevel, TopicPartition

__all__ = ["KafkaReader"]


class KafkaReader:
    """`Reader` on aiokafka."""

    def __init__(
        self,
        name: str,
        isolation: IsolationLevel,
        config: KafkaConfig,
        connection: dict[str, Any],
    ) -> None:
        self._name = name
        self._isolation = isolation
        self._config = config
        self._connection = connection
        self._client: AIOKafkaConsumer | None = None
        self._fetching: Fetching | None = None
        self._assigned = asyncio.Event()

    async def start(self) -> None:
        client = AIOKafkaConsumer(
            client_id=self._name,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level=self._isolation,
            fetch_max_wait_ms=self._config.fetch_max_wait_ms,
            **self._connection,
        )
        await started(client, self._config.bootstrap)
        self._client = client
        self._fetching = Fetching(client)

    async def stop(self) -> None:
        if self._client is None:
            return
        client, self._client = self._client, None
        if self._fetching is not None:
            await self._fetching.stop()
        await bounded(client.stop(), self._config.request_timeout_ms, "closing a reader")

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        client = self._running
        client.assign([KafkaTopicPartition(*tp) for tp in positions])
        # In the same step: a fetch in between would start at some other offset.
        for tp, offset in positions.items():
            client.seek(KafkaTopicPartition(*tp), offset)
        if positions:
            self._assigned.set()
        else:
            self._assigned.clear()

    async def fetch(self, timeout_ms: int) -> Batches:
        if self._fetching is None:
            raise BrokerError("the reader is not started")
        if not self._assigned.is_set():
            try:
                async with asyncio.timeout(timeout_ms / 1000):
                    await self._assigned.wait()
            except TimeoutError:
                return {}
        return await self._fetching.fetch(timeout_ms)

    def position(self, partition: TopicPartition) -> int:
        assignment = self._running._subscription.subscription.assignment
        position: int = assignment.state_value(KafkaTopicPartition(*partition)).position
        return position

    async def beginnings(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        return await self._offsets(self._running.beginning_offsets, partitions)

    async def ends(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        return await self._offsets(self._running.end_offsets, partitions)

    async def partitions(self, topic: str) -> int:
        client = self._running._client
        if client.cluster.partitions_for_topic(topic) is None:
            await bounded(
                client.add_topic(topic), self._config.request_timeout_ms, f"looking up {topic}"
            )
        return len(client.cluster.partitions_for_topic(topic) or ())

    async def _offsets(
        self, ask: Any, partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, int]:
        if not partitions:
            return {}
        found = await bounded(
            ask([KafkaTopicPartition(*tp) for tp in partitions]),
            self._config.request_timeout_ms,
            "asking for offsets",
        )
        return {TopicPartition(*tp): offset for tp, offset in found.items()}

    @property
    def _running(self) -> AIOKafkaConsumer:
        if self._client is None:
            raise BrokerError("the reader is not started")
        return self._client
