"""Read a query record: what was asked, by when, and whether it may be asked."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from anabranch.config.settings import UNCONFIGURED, CoordinatorConfig, TypeConfig
from anabranch.contract.codec import decode, read_id
from anabranch.contract.events import Query
from anabranch.errors import DecodeError
from anabranch.kafka.topics import is_topic_name
from anabranch.kafka.transport import Record

__all__ = ["Intake"]


class Intake:
    """The rules by which a record of `queries` is a query."""

    def __init__(self, config: CoordinatorConfig, types: Mapping[str, TypeConfig]) -> None:
        self._max_timeout_ms = config.max_timeout_ms
        self._reply_topics = config.reply_topics
        self._types = types

    def read(self, record: Record) -> Query:
        """The query in a record.

        Raises:
            DecodeError: it is none, or asks for what is not allowed; with the id, if readable.
        """
        try:
            query = decode(record.value, Query)
        except DecodeError as error:
            error.query_id = read_id(record.value)
            raise
        if not self.layers(query):
            raise DecodeError(f"{self._no_layers(query)}; name them in `layers`", query.id)
        if query.reply_to is not None:
            self._check_reply(query.reply_to, query.id)
        return query

    def layers(self, query: Query) -> tuple[str, ...]:
        """The wanted layers, each once, in the order they were named."""
        if query.layers is None:
            return self.default_layers(query.type)
        return tuple(dict.fromkeys(query.layers))

    def default_layers(self, type_: str) -> tuple[str, ...]:
        """The layers of a type, for a query that names none."""
        return tuple(dict.fromkeys(self._types.get(type_, UNCONFIGURED).layers))

    def deadline_ms(self, query: Query, asked_ms: float) -> float:
        """Epoch milliseconds on the broker's clock."""
        timeout = self._types.get(query.type, UNCONFIGURED).timeout_for(query.timeout_ms)
        return asked_ms + min(timeout, self._max_timeout_ms)

    def _check_reply(self, topic: str, id_: str) -> None:
        if not is_topic_name(topic):
            raise DecodeError(f"reply_to {topic[:100]!r} is no name that a topic can have", id_)
        if not _allowed(topic, self._reply_topics):
            raise DecodeError(f"reply_to {topic!r} is not among coordinator.reply_topics", id_)

    def _no_layers(self, query: Query) -> str:
        if query.layers is not None:
            return "the list of layers is empty"
        return f"type {query.type!r} is not configured with layers"


def _allowed(topic: str, patterns: Collection[str]) -> bool:
    return any(
        topic.startswith(pattern[:-1]) if pattern.endswith("*") else topic == pattern
        for pattern in patterns
    )
