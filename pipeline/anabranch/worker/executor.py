"""Runs tasks: each layer of a task concurrently, results that finish together in one partial."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from anabranch.contract.events import HEADER_OFFSET, Partial, PartialResult, Task, TaskLayer
from anabranch.errors import LayerError, LayerTimeout
from anabranch.kafka.transport import Headers, Record
from anabranch.layers.api import Ask, Request, Result
from anabranch.observe.spans import Trace, Tracer
from anabranch.runtime.clock import Clock
from anabranch.worker.local_queue import LocalQueue
from anabranch.worker.mishaps import Mishaps

__all__ = ["Executor", "Job"]

MAX_ERROR_CHARS: Final = 500


class Job:
    """A task in a worker's hands."""

    __slots__ = ("done", "headers", "open", "queued_ms", "scheduled", "task", "trace")

    def __init__(self, task: Task, record: Record, trace: Trace) -> None:
        self.task = task
        self.trace = trace
        self.headers: Headers = [*trace.headers, (HEADER_OFFSET, b"%d" % task.offset)]
        self.open = len(task.layers)
        self.done: list[PartialResult] = []
        self.scheduled = False
        self.queued_ms = 0.0


class Executor:
    """Runs at most `slots` layers at a time, highest priority first.

    Args:
        asks: each layer as `wrappers.guard` made it.
        publish: called with what finished together.
        now_ms: the broker's clock.
        reserve_ms: kept back from a layer's deadline for joining and answering, a tenth of what
            remains at most.
        max_timeout_ms: no task has more time, whatever deadline it names.
    """

    def __init__(
        self,
        worker: str,
        asks: Mapping[str, Ask],
        queue: LocalQueue[Job],
        publish: Callable[[Job, Partial], None],
        clock: Clock,
        now_ms: Callable[[], float],
        tracer: Tracer,
        *,
        slots: int,
        reserve_ms: float,
        max_timeout_ms: float,
    ) -> None:
        self._worker = worker
        self._asks = asks
        self._queue = queue
        self._publish = publish
        self._clock = clock
        self._now_ms = now_ms
        self._tracer = tracer
        self._slots = slots
        self._reserve_ms = reserve_ms
        self._max_timeout_ms = max_timeout_ms
        self._mishaps = Mishaps()
        self._running: set[asyncio.Task[None]] = set()
        self._stopping = False
        self.expired = 0
        self.wait_ms = 0.0
        """Running average of the wait in the local queue."""

    @property
    def idle(self) -> bool:
        """Nothing runs and nothing waits."""
        return not self._running and not len(self._queue)

    def pump(self) -> None:
        """Start what fits into the free slots.

        A task's layers start together, so the last task may exceed the slots by its width.
        """
        while len(self._queue) and len(self._running) < self._slots:
            job, waited_ms = self._queue.take(self._clock.monotonic() * 1000)
            job.queued_ms = waited_ms
            self.wait_ms += (waited_ms - self.wait_ms) * 0.1
            self._begin(job)

    async def stop(self) -> None:
        """Cancel what runs. Cancellation is not failure: nothing is published for it."""
        self._stopping = True
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _begin(self, job: Job) -> None:
        remaining_ms = job.task.deadline_ms - self._now_ms()
        if remaining_ms <= 0:
            self.expired += 1
            for slot in job.task.layers:
                self._finish(job, _ended(slot, "expired", "its deadline passed in the queue"))
            return
        remaining_ms = min(remaining_ms, self._max_timeout_ms)
        remaining_ms -= min(self._reserve_ms, remaining_ms / 10)
        for slot in job.task.layers:
            task = asyncio.create_task(self._run(job, slot, remaining_ms))
            self._running.add(task)
            task.add_done_callback(self._ran)

    def _ran(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self.pump()

    async def _run(self, job: Job, slot: TaskLayer, remaining_ms: float) -> None:
        started = self._clock.monotonic()
        started_ms = self._now_ms()
        span = self._tracer.child(job.trace, f"layer {slot.layer}", {"anabranch.layer": slot.layer})
        result = await self._ask(job, slot, started + remaining_ms / 1000, remaining_ms, span)
        took_ms = (self._clock.monotonic() - started) * 1000
        result.queued_ms = round(job.queued_ms, 3)
        result.started_ms = round(started_ms, 3)
        result.took_ms = round(took_ms, 3)
        if span is not job.trace:
            span.set({"anabranch.items": len(result.items), "anabranch.status": result.status})
            span.end(result.error)
        self._finish(job, result)

    async def _ask(
        self, job: Job, slot: TaskLayer, deadline: float, remaining_ms: float, span: Trace
    ) -> PartialResult:
        ask = self._asks.get(slot.layer)
        if ask is None:
            return _ended(slot, "error", f"this worker has no layer {slot.layer!r}")
        try:
            result = await ask(_request(job.task, slot, deadline, remaining_ms))
            return _found(slot, job.task.limit, result)
        except asyncio.CancelledError:
            if self._stopping:
                raise
            return _ended(slot, "error", "the layer cancelled itself")
        except LayerTimeout as error:
            return _ended(slot, "timeout", _text(error))
        except LayerError as error:
            self._mishaps.tell_cause(slot.layer, error)
            return _ended(slot, "error", _text(error), transient=error.transient)
        except BaseException as error:  # SystemExit, too: a layer costs its own part only
            span.set({"exception.type": type(error).__name__, "exception.message": _text(error)})
            return _ended(slot, "error", self._mishaps.tell(slot.layer, error))

    def _finish(self, job: Job, result: PartialResult) -> None:
        """Collect; what finishes in the same turn of the loop travels together."""
        job.done.append(result)
        job.open -= 1
        if not job.scheduled:
            job.scheduled = True
            asyncio.get_running_loop().call_soon(self._flush, job)

    def _flush(self, job: Job) -> None:
        job.scheduled = False
        task, results = job.task, job.done
        job.done = []
        self._publish(
            job,
            Partial(
                query=task.query,
                offset=task.offset,
                type=task.type,
                scope=task.scope,
                limit=task.limit,
                key=task.key,
                generation=task.generation,
                worker=self._worker,
                results=results,
            ),
        )
        if not job.open:
            job.trace.end()


def _request(task: Task, slot: TaskLayer, deadline: float, remaining_ms: float) -> Request:
    return Request(
        type=task.type,
        params=msgspec.to_builtins(task.params),  # a copy: what one layer changes is its own
        scope=task.scope,
        limit=task.limit,
        deadline=deadline,
        remaining_ms=remaining_ms,
        shard=slot.shard,
        shards=slot.shards,
        attempt=slot.attempt,
    )


def _found(slot: TaskLayer, limit: int, result: Result) -> PartialResult:
    items = list(result.items[:limit])
    complete = result.complete
    if complete is None:
        complete = len(result.items) < limit
    return PartialResult(
        layer=slot.layer,
        shard=slot.shard,
        shards=slot.shards,
        attempt=slot.attempt,
        items=items,
        complete=complete and len(items) == len(result.items),
        ttl_ms=result.ttl_ms,
        tags=list(result.tags),
    )


def _text(error: BaseException) -> str:
    """What an error says, as text that can be sent; some cannot even say it."""
    try:
        return str(error)[:MAX_ERROR_CHARS].encode(errors="replace").decode()
    except Exception:
        return "(its text cannot be had)"


def _ended(slot: TaskLayer, status: str, error: str, *, transient: bool = False) -> PartialResult:
    return PartialResult(
        layer=slot.layer,
        shard=slot.shard,
        shards=slot.shards,
        attempt=slot.attempt,
        status=status,  # type: ignore[arg-type]
        error=error[:MAX_ERROR_CHARS],
        transient=transient,
    )
