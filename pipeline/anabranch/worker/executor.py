"""Runs tasks: each layer of a task concurrently, what ends in one turn published together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from anabranch.contract.events import Partial, PartialResult, TaskLayer
from anabranch.contract.results import MAX_ERROR_CHARS, failed
from anabranch.errors import LayerError, LayerTimeout
from anabranch.kafka.turns import Turn
from anabranch.layers.api import Ask, Request, Result
from anabranch.observe.spans import Trace, Tracer
from anabranch.runtime.clock import Clock
from anabranch.worker.eager import EagerStart
from anabranch.worker.error_log import ErrorLog
from anabranch.worker.job import Job
from anabranch.worker.local_queue import LocalQueue
from anabranch.worker.wrappers.timeout import no_answer

__all__ = ["Executor"]


class _Layer(NamedTuple):
    ask: Ask
    start: EagerStart


class Executor:
    """Runs at most `slots` layers at a time, highest priority first.

    A layer begins at once: only one that has to wait takes a slot. The layers of a task share one
    timer, set only if any of them waits.

    Args:
        asks: each layer as `wrappers.guard` made it.
        publish: called with what ended in one turn.
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
        publish: Callable[[Sequence[tuple[Job, Partial]]], None],
        clock: Clock,
        now_ms: Callable[[], float],
        tracer: Tracer,
        *,
        slots: int,
        reserve_ms: float,
        max_timeout_ms: float,
    ) -> None:
        self._worker = worker
        self._layers = {name: _Layer(ask, EagerStart()) for name, ask in asks.items()}
        self._queue = queue
        self._publish = publish
        self._clock = clock
        self._now_ms = now_ms
        self._tracer = tracer
        self._slots = slots
        self._reserve_ms = reserve_ms
        self._max_timeout_ms = max_timeout_ms
        self._errors = ErrorLog()
        self._jobs: set[Job] = set()
        """Those with layers that run."""
        self._running = 0
        self._ended: list[Job] = []
        """Jobs of which a layer ended in this turn."""
        self._turn_is_due = False
        self._stopping = False
        self.expired = 0
        self.wait_ms = 0.0
        """Running average of the wait in the local queue."""

    @property
    def idle(self) -> bool:
        """Nothing runs, nothing waits, and all that ended is published."""
        return not self._jobs and not self._ended and not len(self._queue)

    def pump(self) -> None:
        """Start soon what fits into the free slots."""
        if not self._turn_is_due:
            self._turn_is_due = True
            asyncio.get_running_loop().call_soon(self._take_turn)

    async def stop(self) -> None:
        """Cancel what runs. Cancellation is not failure: nothing is published for it."""
        self._stopping = True
        for job in self._jobs:
            job.cancel()
        calls = [call for job in self._jobs for call in job.calls]
        await asyncio.gather(*calls, return_exceptions=True)

    # ── turns ──────────────────────────────────────────────────────────────────────────────

    def _take_turn(self) -> None:
        """Called by the loop, outside of any task: what ends together is published together."""
        if self._stopping:
            return
        try:
            is_over = self._start_waiting()
            self._flush()
        finally:
            self._turn_is_due = False
        if is_over:
            self.pump()

    def _start_waiting(self) -> bool:
        """Start what fits into the free slots; whether the turn was over before.

        A task's layers start together, so the last task may exceed the slots by its width.
        """
        turn = Turn(self._clock.monotonic)
        while len(self._queue) and self._running < self._slots:
            now = self._clock.monotonic()
            job, waited_ms = self._queue.take(now * 1000)
            job.queued_ms = round(waited_ms, 3)
            self.wait_ms += (waited_ms - self.wait_ms) * 0.1
            self._begin(job, now)
            if turn.is_over():
                return True
        return False

    def _flush(self) -> None:
        ended, self._ended = self._ended, []
        if ended:
            self._publish([(job, job.partial(self._worker)) for job in ended])
        for job in ended:
            if not job.outstanding:
                job.trace.end()

    # ── one job ────────────────────────────────────────────────────────────────────────────

    def _begin(self, job: Job, now: float) -> None:
        now_ms = self._now_ms()
        job.started_ms = round(now_ms, 3)
        remaining_ms = min(job.task.deadline_ms - now_ms, self._max_timeout_ms)
        if remaining_ms <= 0:
            self.expired += 1
            for slot in job.task.layers:
                self._finish(job, failed(slot, "expired", "its deadline passed in the queue"))
            return
        remaining_ms -= min(self._reserve_ms, remaining_ms / 10)
        job.remaining_ms, job.deadline = remaining_ms, now + remaining_ms / 1000
        for slot in job.task.layers:
            self._start(job, slot)
        if job.outstanding:
            self._jobs.add(job)
            job.timer = asyncio.get_running_loop().call_at(job.deadline, job.expire)

    def _start(self, job: Job, slot: TaskLayer) -> None:
        layer = self._layers.get(slot.layer)
        if layer is None:
            self._finish(job, failed(slot, "error", f"this worker has no layer {slot.layer!r}"))
            return
        self._running += 1
        call = layer.start(self._run(job, slot, layer.ask))
        if call is not None:
            job.calls.append(call)

    async def _run(self, job: Job, slot: TaskLayer, ask: Ask) -> None:
        started = self._clock.monotonic()
        span = self._span(job.trace, slot.layer)
        try:
            result = await self._ask(job, slot, ask, span)
        finally:
            self._running -= 1
        result.queued_ms = job.queued_ms
        result.started_ms = job.started_ms
        result.took_ms = round((self._clock.monotonic() - started) * 1000, 3)
        if span is not None:
            span.set({"anabranch.items": len(result.items), "anabranch.status": result.status})
            span.end(result.error)
        self._finish(job, result)

    def _span(self, trace: Trace, layer: str) -> Trace | None:
        if not trace.is_recorded:
            return None
        return self._tracer.child(trace, f"layer {layer}", {"anabranch.layer": layer})

    async def _ask(self, job: Job, slot: TaskLayer, ask: Ask, span: Trace | None) -> PartialResult:
        try:
            return _found(slot, job.task.limit, await ask(_request(job, slot)))
        except asyncio.CancelledError:
            if self._stopping:
                raise
            if job.expired:
                return failed(slot, "timeout", no_answer(job.remaining_ms))
            return failed(slot, "error", "the layer cancelled itself")
        except LayerTimeout as error:
            return failed(slot, "timeout", _text(error))
        except LayerError as error:
            self._errors.write_cause(slot.layer, error)
            return failed(slot, "error", _text(error), transient=error.transient)
        except BaseException as error:  # SystemExit, too: a layer costs its own part only
            if job.expired and isinstance(error, TimeoutError):
                return failed(slot, "timeout", no_answer(job.remaining_ms))
            if span is not None:
                span.set(
                    {"exception.type": type(error).__name__, "exception.message": _text(error)}
                )
            return failed(slot, "error", self._errors.write(slot.layer, error))

    def _finish(self, job: Job, result: PartialResult) -> None:
        if not job.results:
            self._ended.append(job)
            self.pump()
        job.results.append(result)
        job.outstanding -= 1
        if not job.outstanding:
            self._jobs.discard(job)
            job.ended()


def _request(job: Job, slot: TaskLayer) -> Request:
    task = job.task
    return Request(
        type=task.type,
        params=msgspec.to_builtins(task.params),  # a copy: what one layer changes is its own
        scope=task.scope,
        limit=task.limit,
        deadline=job.deadline,
        remaining_ms=job.remaining_ms,
        shard=slot.shard,
        shards=slot.shards,
        attempt=slot.attempt,
    )


def _found(slot: TaskLayer, limit: int, result: Result) -> PartialResult:
    found, complete = result.items, result.complete
    return PartialResult(
        layer=slot.layer,
        shard=slot.shard,
        shards=slot.shards,
        attempt=slot.attempt,
        items=list(found[:limit]),
        complete=len(found) <= limit and (len(found) < limit if complete is None else complete),
        ttl_ms=result.ttl_ms,
        tags=list(result.tags),
    )


def _text(error: BaseException) -> str:
    """What an error says, as text that can be sent; some cannot even say it."""
    try:
        return str(error)[:MAX_ERROR_CHARS].encode(errors="replace").decode()
    except Exception:
        return "(its text cannot be had)"
