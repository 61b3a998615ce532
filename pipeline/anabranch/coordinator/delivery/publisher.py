"""Sends what the outbox holds, and tells the partitions what the broker acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from anabranch.coordinator.delivery.contract import Delivery
from anabranch.coordinator.delivery.dead_letters import DeadLetters
from anabranch.coordinator.delivery.fencing import Fencing
from anabranch.coordinator.query.counters import Counters
from anabranch.coordinator.query.outbox import DeadLetterOut, Outbox, TaskOut
from anabranch.coordinator.query.owned import OwnedPartitions
from anabranch.errors import BrokerError, TopicError
from anabranch.kafka.transport import Outcome, Producer, ProducerRecord
from anabranch.runtime.in_flight import InFlight

__all__ = ["Publisher"]


class Publisher:
    """Empties the outbox: tasks, answers, dead letters.

    Args:
        producer: for tasks.
        delivery: of answers.
    """

    def __init__(
        self,
        outbox: Outbox,
        owned: OwnedPartitions,
        producer: Producer,
        delivery: Delivery,
        dead_letters: DeadLetters,
        fencing: Fencing,
        in_flight: InFlight,
        counters: Counters,
    ) -> None:
        self._outbox = outbox
        self._owned = owned
        self._producer = producer
        self._delivery = delivery
        self._dead_letters = dead_letters
        self._fencing = fencing
        self._in_flight = in_flight
        self._counters = counters

    async def flush(self) -> None:
        """Hand everything over; waits only for room in the producer."""
        while self._outbox:
            out = self._outbox.take()
            by_place: dict[tuple[str, int], list[TaskOut]] = {}
            for task in out.tasks:
                by_place.setdefault((task.topic, task.partition), []).append(task)
            for (topic, partition), tasks in by_place.items():
                await self._send_tasks(topic, partition, tasks)
            if out.answers:
                await self._delivery.answer(out.answers)
            for letter in out.dead_letters:
                await self._dead_letter(letter)

    async def _send_tasks(self, topic: str, partition: int, tasks: Sequence[TaskOut]) -> None:
        await self._fencing.ensure_member()
        records = [ProducerRecord(task.value, None, task.headers) for task in tasks]
        try:
            sent = await self._producer.send_batch(topic, partition, records)
        except TopicError as error:
            self._refused(tasks, [error] * len(tasks))
        else:
            sent.add_done_callback(partial(self._sent, tasks))

    def _sent(self, tasks: Sequence[TaskOut], sent: asyncio.Future[Sequence[Outcome]]) -> None:
        error = None if sent.cancelled() else sent.exception()
        if isinstance(error, TopicError):
            self._refused(tasks, [error] * len(tasks))
        elif self._in_flight.arrived(sent) and type(sent.result()) is not range:
            self._refused(tasks, sent.result())
        else:
            return
        self._in_flight.run(self.flush())

    def _refused(self, tasks: Sequence[TaskOut], outcomes: Sequence[int | BrokerError]) -> None:
        """Layers of tasks that nobody has have failed; their queries go on without them."""
        for task, outcome in zip(tasks, outcomes, strict=True):
            if isinstance(outcome, BrokerError):
                self._counters.tasks_refused += 1
                why = f"the broker refused the task: {outcome}"
                self._owned.refused(task.claim, task.offset, task.layers, why)

    async def _dead_letter(self, letter: DeadLetterOut) -> None:
        done = partial(self._lettered, letter)
        await self._dead_letters.record(letter.record, letter.reason, letter.stack, done)

    def _lettered(self, letter: DeadLetterOut) -> None:
        """A dead letter is safe: now its answer may go, or its offset is done."""
        if letter.answer is not None:
            self._in_flight.run(self._delivery.answer([letter.answer]))
        elif letter.claim is not None:
            self._owned.acked(letter.claim, letter.record.offset, None)
