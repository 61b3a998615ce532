"""What leaves a worker: partials, and dead letters of tasks nobody could read."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from msgspec import structs

from anabranch.errors import DecodeError
from anabranch.events import MAX_VALUE_BYTES, Partial, encode
from anabranch.kafka.dead_letters import dead_letter, stack_digest
from anabranch.kafka.topics import Topics
from anabranch.kafka.transport import Acked, Producer, Record
from anabranch.supervise import Stage, signalled
from anabranch.worker.executor import Job

__all__ = ["Outlet"]


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

    @property
    def empty(self) -> bool:
        """Nothing waits to be sent."""
        return not self._waiting

    def publish(self, job: Job, event: Partial) -> None:
        """Queue a partial for sending, as several records if it would not fit into one."""
        value = encode(event)
        results = event.results
        if len(value) > MAX_VALUE_BYTES and len(results) > 1:
            half = len(results) // 2
            for part in (results[:half], results[half:]):
                self.publish(job, structs.replace(event, results=part))
            return
        self._waiting.append((job, value))
        self._filled.set()

    async def bury(self, record: Record, error: DecodeError) -> None:
        """A dead letter."""
        letter = dead_letter(self._instance, str(error), record, stack=stack_digest(error))
        self._track(await self._producer.send(self._topics.dlq, **letter._asdict()))

    async def can_reply(self, partition: int) -> bool:
        """Whether `partials` has the partition; asks again if it may have grown."""
        if partition >= self._replyable:
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

    def _track(self, sent: asyncio.Future[Acked]) -> None:
        self._in_flight.add(sent)
        sent.add_done_callback(self._sent)

    def _sent(self, sent: asyncio.Future[Acked]) -> None:
        self._in_flight.discard(sent)
        if not sent.cancelled() and (error := sent.exception()) is not None:
            self._fail(error, "a record was not acknowledged")
