"""Reply topics that refused a copy: for a while nothing is sent there.

In a transaction a refused copy fails everybody's answers; one bad topic must not do so again and
again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from anabranch.coordinator.outbox import AnswerOut

__all__ = ["ReplyTopics"]

_AVOIDED_S: Final = 60.0


class ReplyTopics:
    """Which topics copies may go to.

    Args:
        now_s: a monotonic clock, in seconds.
    """

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._until_s: dict[str | None, float] = {}

    def avoids(self, topic: str) -> bool:
        """Whether it refused a copy lately."""
        until_s = self._until_s.get(topic)
        if until_s is not None and self._now_s() >= until_s:
            del self._until_s[topic]
        return topic in self._until_s

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
            named = all((out.reply_to or "") in error for error in wrong)
            if _failed(sent) and named:
                self._until_s[out.reply_to] = self._now_s() + _AVOIDED_S


def _failed(sent: asyncio.Future[Any]) -> bool:
    return sent.done() and not sent.cancelled() and sent.exception() is not None
