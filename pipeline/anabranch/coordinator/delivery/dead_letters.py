"""Dead letters of a coordinator, on their way."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from anabranch.coordinator.delivery.fencing import Fencing
from anabranch.coordinator.query.counters import Counters
from anabranch.coordinator.query.outbox import AnswerOut
from anabranch.errors import RecordRefused
from anabranch.kafka.dead_letters import DeadLetter, dead_letter, send_smaller, stack_digest
from anabranch.kafka.transport import Producer, Record
from anabranch.runtime.in_flight import InFlight

__all__ = ["DeadLetters"]

log = logging.getLogger(__name__)


def _nobody_waits() -> None: ...


class DeadLetters:
    """Writes to `dlq`. A letter that the broker refuses is cut smaller, and at last counted.

    Args:
        instance: named in every dead letter.
    """

    def __init__(
        self,
        instance: str,
        topic: str,
        producer: Producer,
        fencing: Fencing,
        in_flight: InFlight,
        counters: Counters,
    ) -> None:
        self._instance = instance
        self._topic = topic
        self._producer = producer
        self._fencing = fencing
        self._in_flight = in_flight
        self._counters = counters

    async def record(
        self, record: Record, reason: str, stack: str, done: Callable[[], None]
    ) -> None:
        """A record that cannot be read; `done` is called when all is done that can be."""
        await self._send(dead_letter(self._instance, reason, record, stack=stack), done)

    async def reply(self, out: AnswerOut, error: Exception) -> None:
        """The copy of an answer that could not be delivered."""
        await self._unsent(out, error, f"reply to {out.reply_to}")

    async def answer(self, out: AnswerOut, error: Exception) -> None:
        """An answer that the broker refused."""
        await self._unsent(out, error, "answer")

    async def _unsent(self, out: AnswerOut, error: Exception, what: str) -> None:
        reason = f"{what}: {str(error) or 'not acknowledged in time'}"
        stack = stack_digest(error)
        letter = dead_letter(self._instance, reason, key=out.key, value=out.value, stack=stack)
        await self._send(letter, _nobody_waits)

    async def _send(self, letter: DeadLetter, done: Callable[[], None]) -> None:
        await self._fencing.ensure_member()
        sent = await self._producer.send(self._topic, **letter._asdict())
        self._in_flight.track(sent, lambda _: done(), partial(self._again, letter, done))

    async def _again(
        self, letter: DeadLetter, done: Callable[[], None], error: RecordRefused
    ) -> None:
        if not await send_smaller(self._producer, self._topic, letter):
            self._counters.letters_lost += 1
            log.error("a dead letter is lost: %s", error)
        done()
