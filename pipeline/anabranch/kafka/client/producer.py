"""Idempotent producing."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka import errors as kafka

from anabranch.config import KafkaConfig
from anabranch.errors import TopicError
from anabranch.kafka.client.failures import bounded, produce_error, started
from anabranch.kafka.transport import Acked, Headers

__all__ = ["KafkaProducer"]

_MAX_REQUEST_BYTES: Final = 5_500_000
"""A dead letter is a whole message of the largest size, and why it is one."""
_MAX_BATCH_BYTES: Final = 262_144


class KafkaProducer:
    """`Producer` on aiokafka: acks=all, idempotent, no linger."""

    def __init__(self, name: str, config: KafkaConfig, connection: dict[str, Any]) -> None:
        self._name = name
        self._config = config
        self._connection = connection
        self._client: AIOKafkaProducer | None = None

    async def start(self) -> None:
        client = AIOKafkaProducer(
            client_id=self._name,
            acks="all",
            enable_idempotence=True,
            max_batch_size=_MAX_BATCH_BYTES,
            max_request_size=_MAX_REQUEST_BYTES,
            **self._connection,
        )
        await started(client, self._config.bootstrap)
        self._client = client

    async def stop(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            await bounded(client.stop(), self._config.request_timeout_ms, "closing a producer")

    async def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int | None = None,
        headers: Headers = (),
    ) -> asyncio.Future[Acked]:
        if self._client is None:
            raise produce_error(RuntimeError("the producer is not started"), topic)
        try:
            sent: asyncio.Future[Acked] = await self._client.send(
                topic, value, key=key, partition=partition, headers=headers
            )
        except kafka.KafkaError as error:
            raise produce_error(error, topic) from error
        except AssertionError as error:  # aiokafka's way to say "Unrecognized partition"
            raise TopicError(f"sending to {topic}: partition {partition}: {error}") from error
        return sent

    async def send_and_wait(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int | None = None,
        headers: Headers = (),
    ) -> Acked:
        sent = await self.send(topic, value, key=key, partition=partition, headers=headers)
        try:
            return await sent
        except kafka.KafkaError as error:
            raise produce_error(error, topic) from error

    async def partitions(self, topic: str) -> int:
        if self._client is None:
            return 0
        client = self._client.client
        if client.cluster.partitions_for_topic(topic) is None:
            await bounded(
                client.add_topic(topic), self._config.request_timeout_ms, f"looking up {topic}"
            )
            await bounded(
                client.force_metadata_update(),
                self._config.request_timeout_ms,
                f"looking up {topic}",
            )
        return len(client.cluster.partitions_for_topic(topic) or ())
