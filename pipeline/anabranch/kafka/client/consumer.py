"""A member of a consumer group."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka import TopicPartition as KafkaTopicPartition

from anabranch.config.settings import KafkaConfig
from anabranch.errors import BrokerError, BrokerUnavailable, GenerationLost
from anabranch.kafka.client.assignment import assignor_for
from anabranch.kafka.client.failures import bounded
from anabranch.kafka.client.fetching import Batches, Fetching
from anabranch.kafka.client.lifecycle import close_consumer, made, started
from anabranch.kafka.client.unpacking import contain
from anabranch.kafka.transport import Committed, RebalanceListener, TopicPartition

__all__ = ["KafkaGroupConsumer"]

_NEVER_MS: Final = 2**31 - 1
_MAX_PARTITION_BYTES: Final = 1024 * 1024


class KafkaGroupConsumer:
    """`GroupConsumer` on aiokafka; eager rebalances, dynamic membership, manual commits."""

    def __init__(
        self,
        name: str,
        group: str,
        topics: Sequence[str],
        listener: RebalanceListener,
        config: KafkaConfig,
        connection: dict[str, Any],
    ) -> None:
        self._name = name
        self._group = group
        self._topics = topics
        self._listener = listener
        self._config = config
        self._connection = connection
        self._client: AIOKafkaConsumer | None = None
        self._fetching: Fetching | None = None

    async def start(self) -> None:
        config = self._config
        client = made(
            AIOKafkaConsumer,
            client_id=self._name,
            group_id=self._group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            partition_assignment_strategy=[assignor_for(self._name)],
            session_timeout_ms=config.session_timeout_ms,
            heartbeat_interval_ms=config.heartbeat_interval_ms,
            rebalance_timeout_ms=config.rebalance_timeout_ms,
            max_poll_interval_ms=_NEVER_MS,
            fetch_max_wait_ms=config.fetch_max_wait_ms,
            max_partition_fetch_bytes=_MAX_PARTITION_BYTES,
            **self._connection,
        )
        self._fetching = Fetching(client)
        client.subscribe(self._topics, listener=_Listener(client, self._listener, self._fetching))
        self._client = client  # callbacks come before `start` returns
        try:
            await started(
                client.start,
                partial(close_consumer, client),
                config,
                config.request_timeout_ms + config.rebalance_timeout_ms,
            )
        except BaseException:
            self._client = self._fetching = None
            raise
        contain(client)

    async def stop(self) -> None:
        client, self._client = self._client, None
        fetching, self._fetching = self._fetching, None
        if client is None or fetching is None:
            return
        fetching.fail(BrokerError("the consumer was stopped"))
        fetching.forget()
        await close_consumer(client, self._config.rebalance_timeout_ms)

    async def fetch(self, timeout_ms: int) -> Batches:
        if self._fetching is None:
            raise BrokerError("the consumer is not started")
        return await self._fetching.fetch(timeout_ms)

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        self._running.pause(*self._mine(partitions))

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        self._running.resume(*self._mine(partitions))

    def seek(self, partition: TopicPartition, offset: int) -> None:
        if mine := self._mine([partition]):
            self._running.seek(mine[0], offset)
            if self._fetching is not None:
                self._fetching.sought(partition)

    async def commit(self, offsets: Mapping[TopicPartition, Committed]) -> None:
        client = self._running
        if client._coordinator.generation < 0:
            # A broker accepts such a commit for a group without members: never send one.
            raise GenerationLost(f"{self._name} is not a member of {self._group}")
        commits = {KafkaTopicPartition(*tp): tuple(c) for tp, c in offsets.items()}
        await bounded(client.commit(commits), self._config.request_timeout_ms, "committing")

    async def prove(self) -> None:
        coordinator = self._running._coordinator
        heard = await bounded(
            coordinator._do_heartbeat(), self._config.request_timeout_ms, "sending a heartbeat"
        )
        if coordinator.generation < 0:
            raise GenerationLost(f"{self._name} is not a member of {self._group} any more")
        if not heard:
            raise BrokerUnavailable("sending a heartbeat: no group coordinator answers")

    async def committed(
        self, partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, Committed]:
        # The public call leaves the metadata out.
        found = await bounded(
            self._running._coordinator.fetch_committed_offsets(
                [KafkaTopicPartition(*tp) for tp in partitions]
            ),
            self._config.request_timeout_ms,
            "reading committed offsets",
        )
        return {
            TopicPartition(*tp): Committed(commit.offset, commit.metadata or "")
            for tp, commit in found.items()
        }

    @property
    def _running(self) -> AIOKafkaConsumer:
        if self._client is None:
            raise BrokerError("the consumer is not started")
        return self._client

    def _mine(self, partitions: Collection[TopicPartition]) -> list[KafkaTopicPartition]:
        assigned = self._running.assignment()
        return [tp for tp in (KafkaTopicPartition(*p) for p in partitions) if tp in assigned]


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """aiokafka logs what a callback raises and goes on; here it ends the instance.

    So does a member id that changed: the group dropped us, and aiokafka joined as a new member.
    """

    def __init__(
        self, client: AIOKafkaConsumer, listener: RebalanceListener, fetching: Fetching
    ) -> None:
        self._client = client
        self._listener = listener
        self._fetching = fetching
        self._member_id: str | None = None

    async def on_partitions_revoked(self, revoked: Collection[KafkaTopicPartition]) -> None:
        await self._call(self._listener.revoked(_ours(revoked)))

    async def on_partitions_assigned(self, assigned: Collection[KafkaTopicPartition]) -> None:
        self._fetching.forget()  # positions are at what is committed now
        member_id = self._client._coordinator.member_id
        if self._member_id not in (None, member_id):
            self._fetching.fail(GenerationLost("the group went on without this member"))
            return
        self._member_id = member_id
        await self._call(self._listener.assigned(_ours(assigned)))

    async def _call(self, callback: Coroutine[Any, Any, None]) -> None:
        try:
            await callback
        except asyncio.CancelledError:
            self._fetching.fail(BrokerError("a rebalance callback was cancelled"))
            raise
        except Exception as error:
            self._fetching.fail(error)


def _ours(partitions: Collection[KafkaTopicPartition]) -> list[TopicPartition]:
    return [TopicPartition(*tp) for tp in partitions]
