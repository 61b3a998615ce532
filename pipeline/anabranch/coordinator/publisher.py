"""Sends what the outbox holds, and tells the partitions what the broker acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from anabranch.coordinator.brain import Brain
from anabranch.coordinator.outbox import AnswerOut, DeadLetterOut
from anabranch.coordinator.pulse import Pulse
from anabranch.errors import BrokerError
from anabranch.kafka.dead_letters import dead_letter
from anabranch.kafka.transport import Acked, Producer

__all__ = ["Publisher"]

_REPLY_TIMEOUT_S = 5.0


class Publisher:
    """The only place of a coordinator that produces queries' tasks and answers.

    Args:
        producer: for tasks, answers and dead letters.
        replies: for copies to `reply_to`: a bad topic must not disturb the idempotent stream.
        fail: called with the error when a record was not acknowledged; the instance must end.
    """

    def __init__(
        self,
        brain: Brain,
        instance: str,
        producer: Producer,
        replies: Producer,
        fail: Callable[[BaseException], None],
        pulse: Pulse,
    ) -> None:
        self._brain = brain
        self._instance = instance
        self._producer = producer
        self._replies = replies
        self._fail = fail
        self._pulse = pulse
        self._in_flight: set[asyncio.Future[Acked] | asyncio.Task[None]] = set()

    async def flush(self) -> None:
        """Hand everything over; waits only for room in the producer."""
        while self._brain.outbox:
            out = self._brain.outbox.take()
            for task in out.tasks:
                await self._pulse.trust()
                sent = await self._producer.send(
                    task.topic, task.value, partition=task.partition, headers=task.headers
                )
                sent.add_done_callback(self._check)
            for answer in out.answers:
                await self._answer(answer)
            for letter in out.dead_letters:
                await self._dead_letter(letter)

    async def settle(self, timeout_s: float) -> None:
        """Wait for acknowledgements of what is in flight, at most so long."""
        if self._in_flight:
            await asyncio.wait(set(self._in_flight), timeout=timeout_s)

    async def _answer(self, out: AnswerOut) -> None:
        await self._pulse.trust()
        if out.owner.held:
            out.owner.deferred.append(out)
        elif out.reply_to is not None:
            self._track(asyncio.ensure_future(self._reply_first(out)))
        elif not out.owner.lost:
            sent = await self._producer.send(
                self._brain.topics.results,
                out.value,
                key=out.key,
                partition=out.owner.number,
                headers=out.headers,
            )
            self._in_flight.add(sent)
            sent.add_done_callback(partial(self._answered, out))

    async def _reply_first(self, out: AnswerOut) -> None:
        """The copy goes first: an answer found in `results` means that both are out."""
        try:
            async with asyncio.timeout(_REPLY_TIMEOUT_S):
                await self._copy(out)
        except (BrokerError, TimeoutError) as error:
            self._brain.counters.replies_lost += 1
            await self._reply_lost(out, str(error) or "not acknowledged in time")
        await self._answer(out._replace(reply_to=None))

    async def _copy(self, out: AnswerOut) -> None:
        await self._replies.send_and_wait(
            out.reply_to or "", out.value, key=out.key, headers=out.headers
        )

    async def _reply_lost(self, out: AnswerOut, reason: str) -> None:
        letter = dead_letter(
            self._instance, f"reply to {out.reply_to}: {reason}", key=out.key, value=out.value
        )
        await self._pulse.trust()
        sent = await self._producer.send(self._brain.topics.dlq, **letter._asdict())
        sent.add_done_callback(self._check)

    async def _dead_letter(self, letter: DeadLetterOut) -> None:
        source = letter.record
        await self._pulse.trust()
        sent = await self._producer.send(
            self._brain.topics.dlq,
            **dead_letter(self._instance, letter.reason, source)._asdict(),
        )
        self._in_flight.add(sent)
        sent.add_done_callback(partial(self._buried, letter))

    def _buried(self, letter: DeadLetterOut, sent: asyncio.Future[Acked]) -> None:
        """A dead letter is safe: now its answer may go, or its offset is done."""
        self._in_flight.discard(sent)
        if not self._check(sent) or letter.owner is None:
            return
        if letter.answer is None:
            letter.owner.on_acked(letter.record.offset, None)
        else:
            self._track(asyncio.ensure_future(self._answer(letter.answer)))

    def _answered(self, out: AnswerOut, sent: asyncio.Future[Acked]) -> None:
        self._in_flight.discard(sent)
        if self._check(sent):
            out.owner.on_acked(out.offset, sent.result().offset)

    def _track(self, task: asyncio.Task[None]) -> None:
        self._in_flight.add(task)
        task.add_done_callback(self._in_flight.discard)
        task.add_done_callback(self._check)

    def _check(self, done: asyncio.Future[Acked] | asyncio.Task[None]) -> bool:
        """False, and the end of the instance, if a record was not acknowledged."""
        if done.cancelled():
            return False
        error = done.exception()
        if error is not None:
            self._fail(error)
        return error is None
