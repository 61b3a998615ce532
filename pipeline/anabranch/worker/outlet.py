"""What leaves a worker: partials, and dead letters of tasks nobody could read."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable
from typing import Final

from msgspec import structs

from anabranch.events import MAX_VALUE_BYTES, Partial, PartialResult, encode
from anabranch.kafka.dead_letters import dead_letter, stack_digest
from anabranch.kafka.topics import Topics
from anabranch.kafka.transport import Acked, Producer, Record
from anabranch.supervise import Stage, signalled
from anabranch.worker.executor import Job

__all__ = ["Outlet"]

log = logging.getLogger(__name__)

_ASK_EVERY_S: Final = 1.0


class Outlet:
    """Sends in the order in which things were finished.

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
        self._fail = fail
        self._waiting: deque[tuple[Job, bytes]] = deque()
        self._filled = asyncio.Event()
        self._in_flight: set[asyncio.Future[Acked]] = set()
        self._replyable = 0
        """Partitions of `partials`, as far as they were asked for."""
        self._ask_after_s = -math.inf

    @property
    def empty(self) -> bool:
        """Nothing waits to be sent."""
        return not self._waiting

    def publish(self, job: Job, event: Partial) -> None:
        """Queue a partial for sending; what does not fit, or cannot be encoded, says so instead.

        A layer may go on changing what it gave: hence it is looked at once more, here.
        """
        results = event.results
        try:
            value = encode(event)
            if len(value) <= MAX_VALUE_BYTES:
                self._waiting.append((job, value))
                self._filled.set()
                return
            why = f"a record holds {MAX_VALUE_BYTES:,} bytes, and this result needs {len(value):,}"
        except Exception as error:
            why = f"the result cannot be encoded: {type(error).__name__}"
        if len(results) > 1:
            half = len(results) // 2
            for part in (results[:half], results[half:]):
                self.publish(job, structs.replace(event, results=part))
        elif results[0].status != "error":
            self.publish(job, structs.replace(event, results=[_refused(results[0], why)]))
        else:  # the task's own names fill the record: whoever wrote it is no coordinator of ours
            log.error("nothing is sent for the task of query %.80s: %s", event.query, why)

    async def bury(self, record: Record, error: Exception) -> None:
        """A dead letter."""
        letter = dead_letter(self._instance, str(error), record, stack=stack_digest(error))
        self._track(await self._producer.send(self._topics.dlq, **letter._asdict()))

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
            while self._waiting:
                job, value = self._waiting[0]
                sent = await self._producer.send(
                    self._topics.partials, value, partition=job.task.partition, headers=job.headers
                )
                self._track(sent)
                self._waiting.popleft()

    async def settle(self, timeout_s: float) -> None:
        """Wait for acknowledgements of what is in flight, at most so long."""
        if self._in_flight:
            await asyncio.wait(set(self._in_flight), timeout=timeout_s)

    def _may_ask(self) -> bool:
        """Tasks may name partitions that never were: the broker is asked for one of many."""
        now_s = asyncio.get_running_loop().time()
        if now_s < self._ask_after_s:
            return False
        self._ask_after_s = now_s + _ASK_EVERY_S
        return True

    def _track(self, sent: asyncio.Future[Acked]) -> None:
        self._in_flight.add(sent)
        sent.add_done_callback(self._sent)

    def _sent(self, sent: asyncio.Future[Acked]) -> None:
        self._in_flight.discard(sent)
        if not sent.cancelled() and (error := sent.exception()) is not None:
            self._fail(error, "a record was not acknowledged")


def _refused(result: PartialResult, why: str) -> PartialResult:
    """What is left of a result that cannot be sent."""
    return PartialResult(
        layer=result.layer,
        shard=result.shard,
        shards=result.shards,
        attempt=result.attempt,
        status="error",
        error=why,
        queued_ms=result.queued_ms,
        started_ms=result.started_ms,
        took_ms=result.took_ms,
    )
