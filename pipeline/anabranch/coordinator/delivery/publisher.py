"""Sends what the outbox holds, and tells the partitions what the broker acknowledged."""

from __future__ import annotations

import asyncio
from functools import partial

from anabranch.coordinator.delivery.contract import Delivery
from anabranch.coordinator.delivery.dead_letters import DeadLetters
from anabranch.coordinator.delivery.fencing import Fencing
from anabranch.coordinator.delivery.in_flight import InFlight
from anabranch.coordinator.query.counters import Counters
from anabranch.coordinator.query.outbox import DeadLetterOut, Outbox, TaskOut
from anabranch.coordinator.query.owned import OwnedPartitions
from anabranch.errors import BrokerError, RecordRefused, TopicError
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
            for task in out.tasks:
                await self._task(task)
            for answer in out.answers:
                await self._delivery.answer(answer)
            for letter in out.dead_letters:
                await self._dead_letter(letter)

    async def _task(self, task: TaskOut, *, alone: bool = False) -> None:
        await self._fencing.ensure_member()
        try:
            sent = await self._producer.send(
                task.topic, task.value, partition=task.partition, headers=task.headers, alone=alone
            )
        except (RecordRefused, TopicError) as error:
            self._refused(task, error)
        else:
            sent.add_done_callback(partial(self._sent, task))

    def _sent(self, task: TaskOut, sent: asyncio.Future[Acked]) -> None:
        error = None if sent.cancelled() else sent.exception()
        if isinstance(error, RecordRefused) and not error.alone:
            self._in_flight.run(self._task(task, alone=True))
        elif isinstance(error, (RecordRefused, TopicError)):
            self._refused(task, error)
            self._in_flight.run(self.flush())
        else:
            self._in_flight.arrived(sent)

    def _refused(self, task: TaskOut, error: BrokerError) -> None:
        """Its layers have failed; the query goes on without them."""
        self._counters.tasks_refused += 1
        why = f"the broker refused the task: {error}"
        self._owned.refused(task.claim, task.offset, task.layers, why)

    async def _dead_letter(self, letter: DeadLetterOut) -> None:
        done = partial(self._lettered, letter)
        await self._dead_letters.record(letter.record, letter.reason, letter.stack, done)

    def _lettered(self, letter: DeadLetterOut) -> None:
        """A dead letter is safe: now its answer may go, or its offset is done."""
        if letter.answer is not None:
            self._in_flight.run(self._delivery.answer(letter.answer))
        elif letter.claim is not None:
            self._owned.acked(letter.claim, letter.record.offset, None)
