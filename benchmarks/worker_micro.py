"""CPU of a task of three layers in a worker without a broker, beside the same written by hand.

    python benchmarks/worker_micro.py

By hand: decode the task, gather the layers within one timeout, encode what they gave. Ours does
that and all that the guarantees ask for: isolation of each layer, bounds of what it gives,
priorities, deadlines on the broker's clock, one partial for what ends together. Only the ratios
mean something.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import uvloop

from anabranch.contract.codec import decode, encode
from anabranch.contract.events import Item, Partial, PartialResult, Task, TaskLayer
from anabranch.kafka.transport import LOG_APPEND_TIME, Headers
from anabranch.layers.api import LayerSpec, Request, layer
from anabranch.observe.spans import Tracer
from anabranch.runtime.clock import SystemClock
from anabranch.worker.executor import Executor
from anabranch.worker.job import Job
from anabranch.worker.local_queue import LocalQueue
from anabranch.worker.threads import LayerThreads
from anabranch.worker.wrappers import guard

NAMES = ("a", "b", "c")
FETCHED = 50
"""Tasks that arrive together."""
TIMEOUT_S = 60.0


class Read(NamedTuple):
    """A record as it was fetched."""

    value: bytes
    offset: int
    partition: int = 0
    topic: str = "anabranch.tasks.default.medium"
    key: bytes | None = None
    timestamp: int = 0
    timestamp_type: int = LOG_APPEND_TIME
    headers: Headers = (
        ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"),
    )
    error: str | None = None


async def at_once(request: Request) -> list[Item]:
    return [Item(f"urn:{request.params['n']}", 1.0, {"text": "found"})]


async def one_turn(request: Request) -> list[Item]:
    await asyncio.sleep(0)
    return await at_once(request)


async def two_ms(request: Request) -> list[Item]:
    await asyncio.sleep(0.002)
    return await at_once(request)


def blocking(request: Request) -> list[Item]:
    return [Item(f"urn:{request.params['n']}", 1.0, {"text": "found"})]


def records(count: int) -> list[Read]:
    """Tasks, each for all three layers."""
    deadline_ms = int((time.time() + TIMEOUT_S) * 1000)
    asked = [TaskLayer(name) for name in NAMES]
    return [
        Read(encode(Task(f"q{n}", 0, n, "t", {"n": n}, "", 20, deadline_ms, asked, "k" * 64)), n)
        for n in range(count)
    ]


async def ours(function: Callable[[Request], Any], tasks: Sequence[Read]) -> None:
    """Through intake, local queue, executor and wrappers, to the bytes of the partials."""
    clock, tracer, left = SystemClock(), Tracer(), len(tasks) * len(NAMES)
    done = asyncio.get_running_loop().create_future()
    queue: LocalQueue[Job] = LocalQueue(2_000)
    threads = [LayerThreads(name, 32) for name in NAMES]

    def publish(ended: Sequence[tuple[Job, Partial]]) -> None:
        nonlocal left
        for _, event in ended:
            encode(event)
            left -= len(event.results)
        if not left:
            done.set_result(None)

    asks = {
        name: guard(LayerSpec(layer(name)(function)), own)
        for name, own in zip(NAMES, threads, strict=True)
    }
    executor = Executor(
        "w",
        asks,
        queue,
        publish,
        clock,
        clock.time_ms,
        tracer,
        slots=3 * FETCHED,
        reserve_ms=20,
        max_timeout_ms=60_000,
    )
    for first in range(0, len(tasks), FETCHED):
        for record in tasks[first : first + FETCHED]:
            trace = tracer.process(record, f"process {record.topic}")
            queue.put("medium", Job(decode(record.value, Task), trace), clock.monotonic() * 1000)
        executor.pump()
        await asyncio.sleep(0)
    await done
    for each in threads:
        each.shutdown()


async def by_hand(function: Callable[[Request], Any], tasks: Sequence[Read]) -> None:
    """What somebody would write who asks for nothing more."""
    ask = function if asyncio.iscoroutinefunction(function) else in_pool(function)
    for first in range(0, len(tasks), FETCHED):
        await asyncio.gather(*(one(ask, record) for record in tasks[first : first + FETCHED]))


def in_pool(function: Callable[[Request], Any]) -> Callable[[Request], Awaitable[Any]]:
    async def ask(request: Request) -> Any:
        return await asyncio.get_running_loop().run_in_executor(None, function, request)

    return ask


async def one(ask: Callable[[Request], Awaitable[Any]], record: Read) -> bytes:
    task = decode(record.value, Task)
    loop = asyncio.get_running_loop()
    request = Request(task.type, task.params, task.scope, task.limit, loop.time() + 1, 1_000.0)
    async with asyncio.timeout(TIMEOUT_S):
        found = await asyncio.gather(*(ask(request) for _ in task.layers))
    results = [PartialResult(name, items=items) for name, items in zip(NAMES, found, strict=True)]
    return encode(
        Partial(task.query, task.offset, task.type, task.scope, task.limit, "", 0, "w", results)
    )


async def cpu_us(
    run: Callable[..., Awaitable[None]], function: Any, tasks: Sequence[Read]
) -> float:
    """CPU of this process for each task."""
    before = time.process_time()
    await run(function, tasks)
    return (time.process_time() - before) / len(tasks) * 1e6


async def main() -> None:
    print(f"CPython {sys.version.split()[0]}, uvloop; us of CPU per task, best of seven")
    print(f"{'layers that answer':24}{'ours':>8}{'by hand':>9}{'ratio':>7}")
    for name, function, count in (
        ("at once", at_once, 3_000),
        ("in the next turn", one_turn, 3_000),
        ("after 2 ms", two_ms, 2_000),
        ("from a thread", blocking, 1_000),
    ):
        tasks = records(count)
        rounds = [
            (await cpu_us(ours, function, tasks), await cpu_us(by_hand, function, tasks))
            for _ in range(7)
        ]
        least = min(r[0] for r in rounds), min(r[1] for r in rounds)
        ratio = statistics.median(mine / theirs for mine, theirs in rounds)
        print(f"{name:24}{least[0]:8.1f}{least[1]:9.1f}{ratio:7.2f}")


if __name__ == "__main__":
    uvloop.run(main())
