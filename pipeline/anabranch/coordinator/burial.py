"""Dead letters of a coordinator, on their way."""

from __future__ import annotations

import asyncio

from anabranch.coordinator.outbox import AnswerOut
from anabranch.coordinator.pulse import Pulse
from anabranch.kafka.dead_letters import DeadLetter, dead_letter, stack_digest
from anabranch.kafka.transport import Acked, Producer, Record

__all__ = ["Burial"]


class Burial:
    """Writes to `dlq`.

    Args:
        instance: named in every dead letter.
    """

    def __init__(self, instance: str, topic: str, producer: Producer, pulse: Pulse) -> None:
        self._instance = instance
        self._topic = topic
        self._producer = producer
        self._pulse = pulse

    async def record(self, record: Record, reason: str, stack: str) -> asyncio.Future[Acked]:
        """A record that nobody could read."""
        return await self._bury(dead_letter(self._instance, reason, record, stack=stack))

    async def reply(self, out: AnswerOut, error: Exception) -> asyncio.Future[Acked]:
        """The copy of an answer that could not be delivered."""
        reason = f"reply to {out.reply_to}: {str(error) or 'not acknowledged in time'}"
        stack = stack_digest(error)
        return await self._bury(
            dead_letter(self._instance, reason, key=out.key, value=out.value, stack=stack)
        )

    async def _bury(self, letter: DeadLetter) -> asyncio.Future[Acked]:
        await self._pulse.trust()
        return await self._producer.send(self._topic, **letter._asdict())
