"""What is said instead of an answer that the broker refuses."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from anabranch.contract.codec import encode
from anabranch.contract.events import Error
from anabranch.coordinator.delivery.dead_letters import DeadLetters
from anabranch.coordinator.query.answering import failure
from anabranch.coordinator.query.counters import Counters
from anabranch.coordinator.query.outbox import AnswerOut
from anabranch.errors import RecordRefused
from anabranch.kafka.transport import Outcome

__all__ = ["Refused"]

log = logging.getLogger(__name__)


class Refused:
    """Whoever asked is told in a few hundred bytes; the answer itself becomes a dead letter."""

    def __init__(self, dead_letters: DeadLetters, counters: Counters) -> None:
        self._dead_letters = dead_letters
        self._counters = counters

    async def instead(
        self,
        out: AnswerOut,
        error: RecordRefused,
        send: Callable[[AnswerOut], Awaitable[Outcome]],
    ) -> int | None:
        """Send what the broker takes; its offset in `results`, None if it takes nothing.

        Args:
            send: sends, and waits for what becomes of it.
        """
        while not out.is_least:
            self._counters.answers_refused += 1
            await self._dead_letters.answer(out, error)
            out = _least(out, error)
            outcome = await send(out)
            if not isinstance(outcome, RecordRefused):
                return outcome
            error = outcome
        log.error("a query has no answer, not even that it failed: %s", error)
        return None


def _least(out: AnswerOut, error: RecordRefused) -> AnswerOut:
    told = Error("internal", f"the broker refused the answer of {len(out.value):,} bytes: {error}")
    failed = failure(out.key.decode(), told, epoch=out.claim.epoch, trace_id=None)
    return out._replace(value=encode(failed), is_least=True)
