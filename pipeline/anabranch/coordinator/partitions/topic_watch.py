"""Notices when the topics that belong together change under a running coordinator.

The client library waits for a topic that is gone, and reads partitions that are new only after
a restart: neither is to happen without a word.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from anabranch.errors import BrokerUnavailable, TopicError
from anabranch.kafka.transport import Producer
from anabranch.runtime.supervisor import Stage

__all__ = ["TopicWatch"]

log = logging.getLogger(__name__)

_TURNS: Final = 5
"""Of a second each, between two looks: a stage that does not stamp for long counts as stuck."""
_MISSES: Final = 3
"""Looks in a row that do not find a topic: one may fall into a change of leaders."""


class TopicWatch:
    """Looks at the partitions of topics that must have as many as each other."""

    def __init__(self, topics: Sequence[str], producer: Producer) -> None:
        self._topics = topics
        self._producer = producer
        self._known: dict[str, int] = {}
        self._missed = 0

    async def run(self, stage: Stage) -> None:
        """Stage: look every few seconds.

        Raises:
            TopicError: a topic is gone.
        """
        while True:
            for _ in range(_TURNS):
                stage.beat()
                await asyncio.sleep(1.0)
            try:  # asks the broker, where `partitions` says what the client last heard
                found = {name: await self._producer.lookup(name) for name in self._topics}
            except BrokerUnavailable:
                continue  # others say so
            self.look(found)

    def look(self, found: dict[str, int]) -> None:
        """Take one look, partitions by topic, 0 for none.

        Raises:
            TopicError: a topic is gone.
        """
        gone = [name for name, count in found.items() if not count]
        self._missed = self._missed + 1 if gone else 0
        if self._missed >= _MISSES:
            raise TopicError(
                f"{', '.join(gone)} is gone; what was in it is lost. Make it again with "
                f"`anabranch topics` and restart"
            )
        if gone:
            return
        if self._known and found != self._known:
            counts = ", ".join(f"{name} {count}" for name, count in found.items())
            log.warning(
                "the topics have other partitions now (%s): give all of them as many, then "
                "restart the coordinators one by one; until then new ones are not read",
                counts,
            )
        self._known = found
