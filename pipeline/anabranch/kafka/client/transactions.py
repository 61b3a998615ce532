"""Producing in transactions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiokafka import TopicPartition as KafkaTopicPartition

from anabranch.config.settings import KafkaConfig
from anabranch.errors import BrokerError
from anabranch.kafka.client.failures import bounded
from anabranch.kafka.client.producer import KafkaProducer
from anabranch.kafka.transport import Committed, TopicPartition

__all__ = ["KafkaTransactionalProducer"]


class KafkaTransactionalProducer(KafkaProducer):
    """`TransactionalProducer` on aiokafka, whose `start` waits for InitProducerId.

    aiokafka commits a transaction although a batch in it failed: hence the caller awaits every
    send first.
    """

    def __init__(
        self, name: str, transactional_id: str, config: KafkaConfig, connection: dict[str, Any]
    ) -> None:
        super().__init__(
            name,
            config,
            connection,
            transactional_id=transactional_id,
            transaction_timeout_ms=config.session_timeout_ms,
        )

    async def stop(self) -> None:
        manager = self._client._txn_manager if self._client is not None else None
        try:
            await super().stop()
        finally:
            waiter = manager._transaction_waiter if manager is not None else None
            if waiter is not None and waiter.done() and not waiter.cancelled():
                waiter.exception()  # told already, by whatever failed first

    async def begin(self) -> None:
        try:
            await self._running.begin_transaction()
        except AssertionError as error:  # aiokafka's way to say that the last one failed
            raise BrokerError(f"{self._name}: the transaction before failed") from error

    async def commit(self, offsets: Mapping[TopicPartition, Committed], group: str) -> None:
        commits = {KafkaTopicPartition(*tp): tuple(c) for tp, c in offsets.items()}
        await bounded(
            self._commit(commits, group), self._config.request_timeout_ms, "committing answers"
        )

    async def _commit(self, commits: dict[Any, Any], group: str) -> None:
        await self._running.send_offsets_to_transaction(commits, group)
        await self._running.commit_transaction()
