"""Topic administration."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from anabranch.config.settings import KafkaConfig
from anabranch.errors import BrokerError, BrokerUnavailable, TopicError, TopicsOnFirstUse
from anabranch.kafka.client.failures import bounded
from anabranch.kafka.client.lifecycle import ended, made, started
from anabranch.kafka.transport import TopicState

__all__ = ["KafkaAdmin"]


class KafkaAdmin:
    """`Admin` on aiokafka."""

    def __init__(self, config: KafkaConfig, connection: dict[str, Any]) -> None:
        self._config = config
        self._connection = connection
        self._client: AIOKafkaAdminClient | None = None

    async def start(self) -> None:
        client = made(AIOKafkaAdminClient, client_id="anabranch-admin", **self._connection)
        await started(
            client.start,
            lambda timeout_ms: ended(client.close(), timeout_ms),
            self._config,
            self._config.request_timeout_ms,
        )
        self._client = client

    async def stop(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await ended(client.close(), self._config.request_timeout_ms)

    async def topics(self, names: Collection[str]) -> dict[str, TopicState]:
        client, limit = self._running, self._config.request_timeout_ms
        # Listed first: asking for a topic by name may create it.
        present = set(await bounded(client.list_topics(), limit, "listing topics")) & set(names)
        if not present:
            return {}
        described = await bounded(
            client.describe_topics(sorted(present)), limit, "describing topics"
        )
        settings = await self._settings(present)
        return {
            topic["topic"]: TopicState(len(topic["partitions"]), settings.get(topic["topic"], {}))
            for topic in described
        }

    async def create(self, topics: Mapping[str, TopicState], replication: int) -> None:
        cluster = await bounded(
            self._running.describe_cluster(), self._config.request_timeout_ms, "counting brokers"
        )
        if cluster["controller_id"] not in {broker["node_id"] for broker in cluster["brokers"]}:
            raise TopicsOnFirstUse("topics cannot be created: the broker names no controller")
        if replication < 0:
            replication = min(3, len(cluster["brokers"]))  # a copy on every broker, three at most
        wanted = [
            NewTopic(name, state.partitions, replication, topic_configs=state.settings)
            for name, state in topics.items()
        ]
        try:
            response = await bounded(
                self._running.create_topics(wanted),
                self._config.request_timeout_ms,
                "creating topics",
            )
        except BrokerUnavailable:
            raise
        except BrokerError as error:
            raise TopicError(f"topics cannot be created here: {error}") from error
        refused = [
            f"{name}: {text or kafka.for_code(code).__name__}"
            for name, code, text in response.topic_errors
            if code not in (kafka.NoError.errno, kafka.TopicAlreadyExistsError.errno)
        ]
        if refused:
            raise TopicError("topics were not created: " + "; ".join(refused))

    async def _settings(self, names: Collection[str]) -> dict[str, dict[str, str]]:
        """Their settings; nothing where the broker does not tell (as the embedded one)."""
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in sorted(names)]
        try:
            responses = await bounded(
                self._running.describe_configs(resources),
                self._config.request_timeout_ms,
                "describing topics",
            )
        except BrokerUnavailable:
            raise
        except BrokerError:
            return {}
        return {
            resource[3]: {entry[0]: entry[1] for entry in resource[4]}
            for response in responses
            for resource in response.resources
        }

    @property
    def _running(self) -> AIOKafkaAdminClient:
        if self._client is None:
            raise BrokerError("the admin client is not started")
        return self._client
