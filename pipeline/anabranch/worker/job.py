"""A task in a worker's hands."""

from __future__ import annotations

import asyncio

from anabranch.contract.events import HEADER_OFFSET, Partial, PartialResult, Task
from anabranch.kafka.transport import Headers
from anabranch.observe.spans import Trace

__all__ = ["Job"]


class Job:
    """What was asked, what runs for it, and what came of it.

    Attributes:
        headers: of each partial.
        outstanding: layers that have not ended.
        results: of layers that have ended, and are not in a partial yet.
        deadline: by when its layers must have ended, on the loop's clock in seconds; they were
            given `remaining_ms` when they began, at `started_ms` on the broker's clock.
        calls: those of its layers that had to wait, and may have ended since.
        expired: its deadline passed while layers ran.
    """

    __slots__ = (
        "calls", "deadline", "expired", "headers", "outstanding", "queued_ms",
        "remaining_ms", "results", "started_ms", "task", "timer", "trace",
    )  # fmt: skip

    def __init__(self, task: Task, trace: Trace) -> None:
        self.task = task
        self.trace = trace
        self.headers: Headers = [*trace.headers, (HEADER_OFFSET, b"%d" % task.offset)]
        self.outstanding = len(task.layers)
        self.results: list[PartialResult] = []
        self.calls: list[asyncio.Task[None]] = []
        self.timer: asyncio.TimerHandle | None = None
        self.expired = False
        self.queued_ms = self.started_ms = self.remaining_ms = self.deadline = 0.0

    def partial(self, worker: str) -> Partial:
        """Takes the results that there are."""
        task, results = self.task, self.results
        self.results = []
        return Partial(
            query=task.query,
            offset=task.offset,
            type=task.type,
            scope=task.scope,
            limit=task.limit,
            key=task.key,
            generation=task.generation,
            worker=worker,
            results=results,
        )

    def expire(self) -> None:
        """End the layers that still run: their time is over. Called by `timer`."""
        self.expired = True
        self.cancel()

    def cancel(self) -> None:
        """Cancel the layers that still run."""
        for call in self.calls:
            call.cancel()

    def ended(self) -> None:
        """No layer runs any more."""
        if self.timer is not None:
            self.timer.cancel()
