"""What end-to-end tests share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from anabranch.client import Client
from anabranch.config.settings import Config
from anabranch.contract.events import Item
from anabranch.coordinator import Coordinator
from anabranch.errors import TopicsOnFirstUse
from anabranch.kafka.client import KafkaTransport
from anabranch.kafka.topics import Topics
from anabranch.kafka.transport import TopicState
from anabranch.layers.api import LayerSpec, Request, layer
from anabranch.runtime.supervisor import until


def found(name: str, delay_s: float = 0.0) -> Callable[[Request], Any]:
    """A layer that says the same of the same question."""

    async def ask(request: Request) -> list[Item]:
        await asyncio.sleep(delay_s)
        return [Item(f"urn:{request.params.get('n')}:{name}", 1.0, {"scope": request.scope})]

    return ask


def layers_of(functions: dict[str, Any], group: str) -> list[LayerSpec]:
    return [LayerSpec(layer(name)(f), group=group) for name, f in functions.items()]


class Pipeline:
    """A running pipeline, and plain Kafka clients beside it."""

    def __init__(self, config: Config, coordinator: Coordinator, client: Client) -> None:
        self.config = config
        self.coordinator = coordinator
        self.client = client
        self.topics = Topics(config.namespace)

    async def know(self, layers: Iterable[str]) -> None:
        """Wait until the coordinator has heard of these layers."""
        directory = self.coordinator.query.registry
        await asyncio.wait_for(
            until(lambda: all(directory.descriptor(name) for name in layers)), 30
        )

    async def create(self, topic: str, settings: dict[str, str] | None = None) -> None:
        """Make a topic; on the embedded broker by its first use."""
        admin = KafkaTransport(self.config.kafka).admin()
        await admin.start()
        try:
            await admin.create({topic: TopicState(1, settings or {})}, -1)
        except TopicsOnFirstUse:
            async with self.producer() as producer:
                await producer.partitions_for(topic)
        finally:
            await admin.stop()

    @asynccontextmanager
    async def producer(self) -> AsyncIterator[AIOKafkaProducer]:
        producer = AIOKafkaProducer(
            bootstrap_servers=self.config.kafka.bootstrap, max_request_size=3_000_000
        )
        await producer.start()
        try:
            yield producer
        finally:
            await producer.stop()

    @asynccontextmanager
    async def reading(self, topic: str) -> AsyncIterator[AIOKafkaConsumer]:
        """A consumer of a topic, from its beginning."""
        consumer = AIOKafkaConsumer(
            topic,
            bootstrap_servers=self.config.kafka.bootstrap,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=20,
        )
        await consumer.start()
        try:
            yield consumer
        finally:
            await consumer.stop()

    async def records(self, topic: str, count: int) -> list[Any]:
        """The first `count` records of a topic, as they come."""
        async with self.reading(topic) as consumer, asyncio.timeout(30):
            return [await consumer.getone() for _ in range(count)]
