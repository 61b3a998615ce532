"""Which topics copies of answers may go to: those that are there, and refused none lately.

Whoever may ask names them. A name that is not there is looked up once, and remembered for a
while, at most so many of them; in a transaction a refused copy fails everybody's answers, and one
bad topic must not do so again and again.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from anabranch.coordinator.query.outbox import AnswerOut

__all__ = ["ReplyTopics"]

_REMEMBERED_S: Final = 60.0
_MOST: Final = 10_000
"""Names that are remembered; what was asked for longest ago is forgotten, and looked up again."""
_MISSING: Final = "there is no such topic"
_REFUSED: Final = "the topic refused a copy in the last minute"


class ReplyTopics:
    """What is known of topics.

    Args:
        lookup: how many partitions a topic has, without a trace in whoever is asked.
        now_s: a monotonic clock, in seconds.
    """

    def __init__(self, lookup: Callable[[str], Awaitable[int]], now_s: Callable[[], float]) -> None:
        self._lookup = lookup
        self._now_s = now_s
        self._known: OrderedDict[str, tuple[float, str | None]] = OrderedDict()
        """Until when, and what speaks against it."""

    async def objection(self, topic: str) -> str | None:
        """Why no copy may go there; None if it may.

        Raises:
            BrokerUnavailable: nobody answers, which says nothing of the topic.
        """
        until_s, found = self._known.get(topic, (0.0, None))
        if self._now_s() < until_s:
            self._known.move_to_end(topic)
            return found
        found = None if await self._lookup(topic) else _MISSING
        self._remember(topic, found)
        return found

    def blame(
        self,
        answers: Sequence[asyncio.Future[Any]],
        copies: Sequence[tuple[AnswerOut, asyncio.Future[Any]]],
    ) -> None:
        """A transaction failed: whose copies were refused, though the answers were not.

        Where an answer was not acknowledged either, what failed them all names the topic.
        """
        wrong = [str(sent.exception()) for sent in answers if _failed(sent)]
        for out, sent in copies:
            topic = out.reply_to or ""
            if _failed(sent) and all(topic in error for error in wrong):
                self.refused(topic)

    def refused(self, topic: str) -> None:
        """It did not take a copy."""
        self._remember(topic, _REFUSED)

    def _remember(self, topic: str, found: str | None) -> None:
        self._known[topic] = (self._now_s() + _REMEMBERED_S, found)
        self._known.move_to_end(topic)
        if len(self._known) > _MOST:
            self._known.popitem(last=False)


def _failed(sent: asyncio.Future[Any]) -> bool:
    return sent.done() and not sent.cancelled() and sent.exception() is not None
