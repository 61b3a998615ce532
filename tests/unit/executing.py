"""Tasks through an executor, on virtual time and without a broker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from records import FakeRecord

from anabranch.contract.codec import decode, encode
from anabranch.contract.events import Item, Partial, PartialResult, Task, TaskLayer
from anabranch.layers.api import LayerSpec, Request, layer
from anabranch.layers.middleware import Wrapper
from anabranch.observe.spans import Tracer
from anabranch.runtime.supervisor import until
from anabranch.testing.virtual_time import VirtualClock, run
from anabranch.worker.executor import Executor
from anabranch.worker.job import Job
from anabranch.worker.local_queue import LocalQueue
from anabranch.worker.threads import LayerThreads
from anabranch.worker.wrappers import guard

__all__ = ["ITEMS", "execute", "only"]

ITEMS = [Item(f"urn:{n}", 1.0 - n / 10) for n in range(5)]


def _job(*layers: str, deadline_ms: float, limit: int = 20) -> Job:
    task = Task(
        query="q1",
        partition=3,
        offset=7,
        type="t",
        params={"text": "x"},
        scope="s",
        limit=limit,
        deadline_ms=int(deadline_ms),
        layers=[TaskLayer(name, attempt=(2, 1)) for name in layers],
        key="digest",
        generation=9,
    )
    record = FakeRecord(encode(task), topic="anabranch.tasks.default.medium")
    return Job(task, Tracer().process(record, "process"))


def execute(
    functions: dict[str, Callable[[Request], Any]],
    *jobs_of: tuple[tuple[str, ...], float],
    slots: int = 32,
    limit: int = 20,
    wrappers: Sequence[Wrapper] = (),
    before: Callable[[asyncio.AbstractEventLoop], object] = lambda _: None,
    **settings: Any,
) -> list[Partial]:
    """Run jobs (their layers, and how many ms they have) to their end; what others read then.

    Args:
        before: called with the loop once all is queued.
        settings: of every layer.
    """

    async def body() -> list[Partial]:
        clock = VirtualClock()
        published: list[Partial] = []

        def publish(ended: Sequence[tuple[Job, Partial]]) -> None:
            published.extend(decode(encode(partial), Partial) for _, partial in ended)

        queue: LocalQueue[Job] = LocalQueue(1_000)
        specs = [LayerSpec(layer(name)(f), **settings) for name, f in functions.items()]
        executor = Executor(
            "w1",
            {s.layer.name: guard(s, LayerThreads(s.layer.name, 1), wrappers) for s in specs},
            queue,
            publish,
            clock,
            clock.time_ms,
            Tracer(),
            slots=slots,
            reserve_ms=20,
            max_timeout_ms=60_000,
        )
        for names, for_ms in jobs_of:
            made = _job(*names, deadline_ms=clock.time_ms() + for_ms, limit=limit)
            queue.put("medium", made, clock.monotonic() * 1000)
        before(asyncio.get_running_loop())
        executor.pump()
        await until(lambda: executor.idle, every_s=0.001)
        return published

    return run(body())


def only(partials: list[Partial]) -> PartialResult:
    """The one result that there is."""
    (partial,) = partials
    (result,) = partial.results
    return result
