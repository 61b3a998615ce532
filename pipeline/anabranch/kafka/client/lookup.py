"""What the broker knows of topics.

aiokafka asks about a topic by adding it to those that it follows, for good: that is for our own.
Names that somebody else chose would be asked about, and written into the log, with every refresh
of its metadata, and a broker may make the topics; for those there is `Lookup`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from copy import copy
from typing import Final

from aiokafka import errors as kafka
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.metadata import MetadataRequest

from anabranch.errors import BrokerUnavailable
from anabranch.kafka.client.failures import bounded
from anabranch.kafka.topics import is_topic_name

__all__ = ["Lookup", "count_partitions", "follow_topic", "forget_topic", "has_partition"]

_AT_ONCE: Final = 500
"""Names in one request."""
_BEING_MADE: Final = kafka.LeaderNotAvailableError.errno
_LATER_S: Final = 0.1
"""A topic that is being made is asked about again."""


async def count_partitions(client: AIOKafkaClient, topic: str, timeout_ms: int) -> int:
    """How many partitions a topic has, asking the broker if it is not known; 0 if it is not there.

    Raises:
        BrokerUnavailable: nobody answers.
    """
    # Twice: a request under way may have been made before the topic was added to it.
    for _ in range(2):
        if client.cluster.partitions_for_topic(topic) is not None:
            break
        client.add_topic(topic)
        if not await bounded(client.force_metadata_update(), timeout_ms, f"looking up {topic}"):
            raise BrokerUnavailable(f"looking up {topic}: nobody answers")
    return len(client.cluster.partitions_for_topic(topic) or ())


class Lookup:
    """Questions that leave no trace; what is asked while one is on its way goes together."""

    def __init__(self, client: AIOKafkaClient, timeout_ms: int) -> None:
        self._client = client
        self._timeout_ms = timeout_ms
        self._waiting: dict[str, asyncio.Future[int]] = {}
        self._task: asyncio.Task[None] | None = None

    async def partitions(self, topic: str) -> int:
        """How many partitions a topic has; 0 if it is not there.

        Raises:
            BrokerUnavailable: nobody answers.
        """
        if not is_topic_name(topic):
            return 0
        waiting = self._waiting.get(topic)
        if waiting is None:
            waiting = self._waiting[topic] = asyncio.get_running_loop().create_future()
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._ask_all())
        return await bounded(asyncio.shield(waiting), self._timeout_ms, f"looking up {topic}")

    def close(self) -> None:
        """Nobody waits any more."""
        if self._task is not None:
            self._task.cancel()

    async def _ask_all(self) -> None:
        while self._waiting:
            names = list(self._waiting)[:_AT_ONCE]
            asked = {name: self._waiting.pop(name) for name in names}
            try:
                found = await self._ask(names)
            except Exception as error:
                _settle(asked, error)
            else:
                _settle(asked, found)

    async def _ask(self, names: list[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        while names:
            node = self._client.get_random_node()
            if node is None:
                raise BrokerUnavailable("looking up topics: no broker is known")
            response = await self._client.send(node, MetadataRequest(names, False))
            topics = {topic: (code, len(parts)) for code, topic, _, parts in response.topics}
            names = [
                n for n in names if topics.get(n, (0,))[0] == kafka.LeaderNotAvailableError.errno
            ]
            found |= {topic: 0 if code else count for topic, (code, count) in topics.items()}
            if names:
                await asyncio.sleep(_LATER_S)
        return found


def follow_topic(client: AIOKafkaClient, topic: str) -> None:
    """Keep a topic in the metadata for as long as something is on its way there.

    What aiokafka knows from its start it does not follow: the next topic that it is asked to follow
    replaces all of that, and batches that wait for a leader wait for ever.
    """
    client._topics.add(topic)


def has_partition(client: AIOKafkaClient, topic: str, partition: int | None) -> bool:
    """Whether that partition is known; without a set of all, which aiokafka makes when asked."""
    return partition in client.cluster._partitions.get(topic, ())


def forget_topic(client: AIOKafkaClient, topic: str) -> None:
    """Follow a topic no more that is not there."""
    if topic not in client.cluster._partitions:
        client._topics.discard(topic)


def _settle(asked: Mapping[str, asyncio.Future[int]], outcome: dict[str, int] | Exception) -> None:
    for name, waiting in asked.items():
        if waiting.done():
            continue
        if isinstance(outcome, Exception):
            waiting.set_exception(copy(outcome))  # shared, its traceback grows with each waiter
            waiting.exception()  # told, whether somebody still waits or not
        else:
            waiting.set_result(outcome.get(name, 0))
