"""The one place that imports aiokafka: `Transport` on a real broker."""

from __future__ import annotations

from collections.abc import Sequence

from anabranch.config.settings import KafkaConfig
from anabranch.kafka.client.admin import KafkaAdmin
from anabranch.kafka.client.consumer import KafkaGroupConsumer
from anabranch.kafka.client.producer import KafkaProducer
from anabranch.kafka.client.quiet import quiet
from anabranch.kafka.client.reader import KafkaReader
from anabranch.kafka.client.settings import connection
from anabranch.kafka.client.transactions import KafkaTransactionalProducer
from anabranch.kafka.transport import (
    Admin,
    GroupConsumer,
    IsolationLevel,
    Producer,
    Reader,
    RebalanceListener,
    TransactionalProducer,
)

__all__ = ["KafkaTransport"]


class KafkaTransport:
    """Clients of the broker at `config.bootstrap`.

    Raises:
        ConfigError: `kafka.client` has a setting that there is not, or a file that cannot be read.
    """

    def __init__(self, config: KafkaConfig) -> None:
        quiet()
        self._config = config
        self._connection = connection(config)

    def producer(self, name: str) -> Producer:
        return KafkaProducer(name, self._config, self._connection)

    def transactional(self, name: str, transactional_id: str) -> TransactionalProducer:
        return KafkaTransactionalProducer(name, transactional_id, self._config, self._connection)

    def consumer(
        self, name: str, group: str, topics: Sequence[str], listener: RebalanceListener
    ) -> GroupConsumer:
        return KafkaGroupConsumer(name, group, topics, listener, self._config, self._connection)

    def reader(self, name: str, isolation: IsolationLevel = "read_committed") -> Reader:
        return KafkaReader(name, isolation, self._config, self._connection)

    def admin(self) -> Admin:
        return KafkaAdmin(self._config, self._connection)
