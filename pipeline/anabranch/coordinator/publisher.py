"""Sends what the outbox holds, and tells the partitions what the broker acknowledged."""

from __future__ import annotations

from functools import partial

from anabranch.coordinator.brain import Brain
from anabranch.coordinator.burial import Burial
from anabranch.coordinator.delivery import Delivery
from anabranch.coordinator.in_flight import InFlight
from anabranch.coordinator.outbox import DeadLetterOut, TaskOut
from anabranch.coordinator.pulse import Pulse
from anabranch.kafka.transport import Acked, Producer

__all__ = ["Publisher"]


class Publisher:
    """Empties the outbox: tasks, answers, dead letters.

    Args:
        producer: for tasks.
        delivery: of answers.
    """

    def __init__(
        self,
        brain: Brain,
        producer: Producer,
        delivery: Delivery,
        burial: Burial,
        pulse: Pulse,
        in_flight: InFlight,
    ) -> None:
        self._brain = brain
        self._producer = producer
        self._delivery = delivery
        self._burial = burial
        self._pulse = pulse
        self._in_flight = in_flight

    async def flush(self) -> None:
        """Hand everything over; waits only for room in the producer."""
        while self._brain.outbox:
            out = self._brain.outbox.take()
            for task in out.tasks:
                await self._task(task)
            for answer in out.answers:
                await self._delivery.answer(answer)
            for letter in out.dead_letters:
                await self._dead_letter(letter)

    async def _task(self, task: TaskOut) -> None:
        await self._pulse.trust()
        sent = await self._producer.send(
            task.topic, task.value, partition=task.partition, headers=task.headers
        )
        sent.add_done_callback(self._in_flight.arrived)

    async def _dead_letter(self, letter: DeadLetterOut) -> None:
        sent = await self._burial.record(letter.record, letter.reason, letter.stack)
        self._in_flight.add(sent, partial(self._buried, letter))

    def _buried(self, letter: DeadLetterOut, _: Acked) -> None:
        """A dead letter is safe: now its answer may go, or its offset is done."""
        if letter.owner is None:
            return
        if letter.answer is None:
            letter.owner.on_acked(letter.record.offset, None)
        else:
            self._in_flight.run(self._delivery.answer(letter.answer))
