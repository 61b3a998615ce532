"""Idempotent producing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from aiokafka import AIOKafkaProducer
from aiokafka import TopicPartition as KafkaTopicPartition

from anabranch.config.settings import KafkaConfig
from anabranch.errors import BrokerError, ProduceError, TopicError
from anabranch.kafka.client.batching import Batching
from anabranch.kafka.client.failures import produce_error
from anabranch.kafka.client.lifecycle import LAST_MS, close_producer, made, started
from anabranch.kafka.client.lookup import (
    Lookup,
    count_partitions,
    follow_topic,
    forget_topic,
    has_partition,
)
from anabranch.kafka.client.refusals import watch_refusals
from anabranch.kafka.transport import Acked, Headers, Outcome, ProducerRecord

__all__ = ["KafkaProducer"]

T = TypeVar("T")

_MAX_REQUEST_BYTES: Final = 5_500_000
"""A dead letter is a whole message of the largest size, and why it is one."""
_MAX_BATCH_BYTES: Final = 262_144


class KafkaProducer:
    """`Producer` on aiokafka: acks=all, idempotent, no linger."""

    def __init__(
        self, name: str, config: KafkaConfig, connection: dict[str, Any], **more: Any
    ) -> None:
        self._name = name
        self._config = config
        self._settings = connection | more
        self._client: AIOKafkaProducer | None = None
        self._batching: Batching
        self._lookup: Lookup | None = None

    async def start(self) -> None:
        client = made(
            AIOKafkaProducer,
            client_id=self._name,
            acks="all",
            enable_idempotence=True,
            max_batch_size=_MAX_BATCH_BYTES,
            max_request_size=_MAX_REQUEST_BYTES,
            **self._settings,
        )
        watch_refusals(client)
        await started(
            client.start,
            partial(close_producer, client),
            self._config,
            self._config.request_timeout_ms,
        )
        self._client = client
        self._batching = Batching(client, self._config.request_timeout_ms / 1000)
        self._lookup = Lookup(client.client, self._config.request_timeout_ms)

    async def stop(self) -> None:
        client, self._client = self._client, None
        if self._lookup is not None:
            self._lookup.close()
        if client is None:
            return
        give_up_s = time.monotonic() + self._config.request_timeout_ms / 1000
        await self._batching.settled(give_up_s - time.monotonic())
        left_ms = max(LAST_MS, int((give_up_s - time.monotonic()) * 1000))
        if not await close_producer(client, left_ms):
            raise ProduceError(f"{self._name} was closed before all that it had sent was delivered")

    async def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int | None = None,
        headers: Headers = (),
    ) -> asyncio.Future[Acked]:
        _check(topic, key, value)
        return await self._handed_over(
            self._running,
            topic,
            partition,
            self._send(topic, partition, ProducerRecord(value, key, headers)),
        )

    async def send_batch(
        self, topic: str, partition: int, records: Sequence[ProducerRecord]
    ) -> asyncio.Future[Sequence[Outcome]]:
        for record in records:
            _check(topic, record.key, record.value)
        return await self._handed_over(
            self._running, topic, partition, self._send_batch(topic, partition, records)
        )

    async def send_and_wait(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int | None = None,
        headers: Headers = (),
    ) -> Acked:
        return await (await self.send(topic, value, key=key, partition=partition, headers=headers))

    async def partitions(self, topic: str) -> int:
        return await count_partitions(self._running.client, topic, self._config.request_timeout_ms)

    async def lookup(self, topic: str) -> int:
        if self._lookup is None:
            raise BrokerError("the producer is not started")
        return await self._lookup.partitions(topic)

    async def _send(
        self, topic: str, partition: int | None, record: ProducerRecord
    ) -> asyncio.Future[Acked]:
        to = await self._place(topic, partition, record)
        return await self._batching.send_one(to, record)

    async def _send_batch(
        self, topic: str, partition: int, records: Sequence[ProducerRecord]
    ) -> asyncio.Future[Sequence[Outcome]]:
        return await self._batching.send(await self._place(topic, partition), records)

    async def _place(
        self, topic: str, partition: int | None, record: ProducerRecord | None = None
    ) -> KafkaTopicPartition:
        """That partition, or else one for the record's key."""
        client = self._running
        if not has_partition(client.client, topic, partition):
            await client.client._wait_on_metadata(topic)
            key = None if record is None else record.key
            partition = client._partition(topic, partition, None, None, key, None)
        return KafkaTopicPartition(topic, partition)

    async def _handed_over(
        self,
        client: AIOKafkaProducer,
        topic: str,
        partition: int | None,
        sending: Coroutine[Any, Any, T],
    ) -> T:
        """What it returns, with aiokafka's errors as ours; meanwhile the topic is followed."""
        follow_topic(client.client, topic)
        try:
            return await sending
        except AssertionError as error:  # aiokafka's way to say "Unrecognized partition"
            raise TopicError(f"sending to {topic}: there is no partition {partition}") from error
        except BrokerError:
            raise  # ours already: raised from itself, its causes would have no end
        except Exception as error:
            raise produce_error(error, topic) from error
        finally:
            forget_topic(client.client, topic)

    @property
    def _running(self) -> AIOKafkaProducer:
        if self._client is None:
            raise BrokerError("the producer is not started")
        return self._client


def _check(topic: str, key: bytes | None, value: bytes | None) -> None:
    if value is None and key is None:
        raise ProduceError(f"sending to {topic}: a record needs a key or a value")
