"""Reading without a group."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaTopicPartition

from anabranch.config.settings import KafkaConfig
from anabranch.errors import BrokerError
from anabranch.kafka.client.failures import bounded
from anabranch.kafka.client.fetching import Batches, Fetching
from anabranch.kafka.client.lifecycle import LAST_MS, close_consumer, made, started
from anabranch.kafka.client.lookup import count_partitions
from anabranch.kafka.client.unpacking import contain
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
        self._starts: dict[TopicPartition, int] = {}

    async def start(self) -> None:
        client = made(
            AIOKafkaConsumer,
            client_id=self._name,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level=self._isolation,
            fetch_max_wait_ms=self._config.fetch_max_wait_ms,
            **self._connection,
        )
        await started(
            client.start,
            partial(close_consumer, client),
            self._config,
            self._config.request_timeout_ms,
        )
        contain(client)
        self._client = client
        self._fetching = Fetching(client)

    async def stop(self) -> None:
        client, self._client = self._client, None
        fetching, self._fetching = self._fetching, None
        if client is None or fetching is None:
            return
        fetching.fail(BrokerError("the reader was stopped"))
        fetching.forget()
        # It has no group to leave; and where the assignment has just changed, aiokafka's fetcher
        # swallows its own end, and would be waited for in vain.
        await close_consumer(client, LAST_MS)

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        client = self._running
        if self._fetching is not None:
            self._fetching.forget()
        client.assign([KafkaTopicPartition(*tp) for tp in positions])
        # In the same step: a fetch in between would start at some other offset.
        for tp, offset in positions.items():
            client.seek(KafkaTopicPartition(*tp), offset)
        self._starts = dict(positions)
        if positions:
            self._assigned.set()
        else:
            self._assigned.clear()

    async def fetch(self, timeout_ms: int) -> Batches:
        if self._fetching is None:
            raise BrokerError("the reader is not started")
        if self._assigned.is_set():
            return await self._fetching.fetch(timeout_ms)
        loop = asyncio.get_running_loop()
        give_up = loop.time() + timeout_ms / 1000
        try:
            async with asyncio.timeout_at(give_up):
                await self._assigned.wait()
        except TimeoutError:
            return {}
        return await self._fetching.fetch((give_up - loop.time()) * 1000)

    def position(self, partition: TopicPartition) -> int:
        state = self._running._subscription.subscription.assignment.state_value(
            KafkaTopicPartition(*partition)
        )
        if state is None:
            raise BrokerError(f"{partition} is not assigned")
        # Where what we asked for is gone, the next position is not known for a moment.
        return int(state.position) if state.has_valid_position else self._starts[partition]

    async def beginnings(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        return await self._offsets(self._running.beginning_offsets, partitions)

    async def ends(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        return await self._offsets(self._running.end_offsets, partitions)

    async def partitions(self, topic: str) -> int:
        return await count_partitions(self._running._client, topic, self._config.request_timeout_ms)

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
