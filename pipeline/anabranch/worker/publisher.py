"""What leaves a worker: partials, and dead letters of tasks nobody could read."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple

from msgspec import structs

from anabranch.contract.codec import MAX_VALUE_BYTES, encode
from anabranch.contract.events import Partial, PartialResult
from anabranch.contract.results import failed
from anabranch.errors import RecordRefused
from anabranch.kafka.dead_letters import DeadLetter, send_smaller, stack_digest
from anabranch.kafka.dead_letters import dead_letter as letter_of
from anabranch.kafka.topics import Topics
from anabranch.kafka.transport import Outcome, Producer, ProducerRecord, Record
from anabranch.runtime.in_flight import InFlight
from anabranch.runtime.supervisor import Stage, signalled
from anabranch.worker.job import Job

__all__ = ["Publisher"]

log = logging.getLogger(__name__)

_ASK_EVERY_S: Final = 1.0


class _Out(NamedTuple):
    """A partial on its way."""

    job: Job
    event: Partial
    record: ProducerRecord


class Publisher:
    """Sends in the order in which things were finished, what waits for a partition as one batch.

    Args:
        fail: called with the error when a record was not acknowledged; the worker must end.
    """

    def __init__(
        self,
        instance: str,
        producer: Producer,
        topics: Topics,
        fail: Callable[[BaseException, str], None],
    ) -> None:
        self._instance = instance
        self._producer = producer
        self._topics = topics
        self._waiting: dict[int, list[_Out]] = {}
        """By partition."""
        self._filled = asyncio.Event()
        self._is_handing_over = False
        self._in_flight = InFlight(fail)
        self._replyable = 0
        """Partitions of `partials`, as far as they were asked for."""
        self._ask_after_s = -math.inf

    @property
    def idle(self) -> bool:
        """Nothing waits, and everything was acknowledged or refused."""
        return not self._waiting and not self._is_handing_over and self._in_flight.idle

    def publish(self, ended: Sequence[tuple[Job, Partial]]) -> None:
        """Queue partials for sending; what does not fit, or cannot be encoded, says so instead."""
        for job, event in ended:
            self._publish(job, event)

    async def dead_letter(self, record: Record, error: Exception) -> None:
        """A task that nobody could read."""
        letter = letter_of(self._instance, str(error), record, stack=stack_digest(error))
        sent = await self._producer.send(self._topics.dlq, **letter._asdict())
        self._in_flight.track(sent, lambda _: None, partial(self._send_smaller, letter))

    async def can_reply(self, partition: int) -> bool:
        """Whether `partials` has the partition; asks again if it may have grown."""
        if partition >= self._replyable and self._may_ask():
            self._replyable = await self._producer.partitions(self._topics.partials)
        return 0 <= partition < self._replyable

    async def send(self, stage: Stage) -> None:
        """Stage: send what waits."""
        while True:
            stage.beat()
            if not await signalled(self._filled):
                continue
            self._filled.clear()
            self._is_handing_over = True
            while self._waiting:
                await self._send(next(iter(self._waiting)))
            self._is_handing_over = False

    async def settle(self, timeout_s: float) -> None:
        """Wait for what becomes of all that is in flight, at most so long."""
        await self._in_flight.drain(timeout_s)

    # ── partials ───────────────────────────────────────────────────────────────────────────

    def _publish(self, job: Job, event: Partial) -> None:
        try:
            value = encode(event)
            if len(value) <= MAX_VALUE_BYTES:
                self._queue(_Out(job, event, ProducerRecord(value, headers=job.headers)))
                return
            why = f"a record holds {MAX_VALUE_BYTES:,} bytes, and this result needs {len(value):,}"
        except Exception as error:
            why = f"the result cannot be encoded: {type(error).__name__}"
        if len(event.results) > 1:
            half = len(event.results) // 2
            for part in (event.results[:half], event.results[half:]):
                self._publish(job, structs.replace(event, results=part))
        else:
            self._give_up(job, event, why)

    def _queue(self, out: _Out) -> None:
        self._waiting.setdefault(out.job.task.partition, []).append(out)
        self._filled.set()

    async def _send(self, partition: int) -> None:
        outs = self._waiting.pop(partition)
        records = [out.record for out in outs]
        sent = await self._producer.send_batch(self._topics.partials, partition, records)
        self._in_flight.track(sent, partial(self._sent, outs))

    def _sent(self, outs: Sequence[_Out], outcomes: Sequence[Outcome]) -> None:
        if type(outcomes) is range:
            return
        for out, outcome in zip(outs, outcomes, strict=True):
            if isinstance(outcome, RecordRefused):
                self._give_up(out.job, out.event, f"the broker refuses the result: {outcome}")

    def _give_up(self, job: Job, event: Partial, why: str) -> None:
        """Results that cannot be sent say so instead, if that is something new."""
        if any(result.status != "error" for result in event.results):
            results = [_without_items(result, why) for result in event.results]
            self._publish(job, structs.replace(event, results=results))
        else:  # the task's own names fill the record: whoever wrote it is no coordinator of ours
            log.error("nothing is sent for the task of query %.80s: %s", event.query, why)

    def _may_ask(self) -> bool:
        """Tasks may name partitions that never were: the broker is asked for one of many."""
        now_s = asyncio.get_running_loop().time()
        if now_s < self._ask_after_s:
            return False
        self._ask_after_s = now_s + _ASK_EVERY_S
        return True

    # ── dead letters ───────────────────────────────────────────────────────────────────────

    async def _send_smaller(self, letter: DeadLetter, error: RecordRefused) -> None:
        """The broker does not take a letter."""
        if not await send_smaller(self._producer, self._topics.dlq, letter):
            log.error("a dead letter is lost: %s", error)


def _without_items(result: PartialResult, why: str) -> PartialResult:
    """What is left of a result that cannot be sent."""
    left = failed(result, "error", why)
    left.queued_ms, left.started_ms = result.queued_ms, result.started_ms
    left.took_ms = result.took_ms
    return left
