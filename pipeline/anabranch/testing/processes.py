"""Simulated processes: coroutines that can be stopped, killed or frozen in the middle of anything.

A process is a transport (see `memory`) and everything that runs on the loop for it, found by a
context variable that tasks and callbacks inherit. `kill` takes both away at once: nothing that
the process still runs while it is torn down reaches the broker. `freeze` holds back whatever the
loop would run for it, while time and what is on its way go on.

    run(scenario(), ProcessLoop)
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import Context, ContextVar
from heapq import heappush
from typing import Any, NoReturn, TypeVarTuple

from anabranch.runtime.clock import Clock
from anabranch.testing.memory import MemoryBroker, MemoryTransport
from anabranch.testing.virtual_time import VirtualTimeLoop

__all__ = ["Body", "ProcessLoop", "Processes"]

Body = Callable[[MemoryTransport, asyncio.Event], Awaitable[None]]
"""What a process runs: with its clients, until the event is set (its SIGTERM)."""

Ts = TypeVarTuple("Ts")

_MAX_ROUNDS = 1_000

_process: ContextVar[_Process | None] = ContextVar("process", default=None)


class _Process:
    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.tasks: set[asyncio.Task[Any]] = set()
        self.main: asyncio.Task[None] | None = None
        self.frozen = False
        self.held: list[asyncio.Handle] = []

    def thaw(self) -> None:
        """Run what was held back, in its order; what ran before it may still cancel it."""
        self.frozen = False
        held, self.held = self.held, []
        for late in held:
            asyncio.get_running_loop().call_soon(_run_late, late, context=Context())


class ProcessLoop(VirtualTimeLoop):
    """A virtual loop that holds back what belongs to a frozen process.

    Nearly all of a simulation goes through here: what asyncio's own loop does with a callback is
    done by handles that look first whether their process may run.
    """

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]

    def call_soon(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.Handle:
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        timer = _TimerHandle(when, callback, args, self, context)
        heappush(self._scheduled, timer)
        timer._scheduled = True
        return timer


class _Handle(asyncio.Handle):
    _context: Context

    def _run(self) -> None:
        process = self._context.get(_process)
        if process is not None and process.frozen:
            process.held.append(self)
        else:
            super()._run()


class _TimerHandle(asyncio.TimerHandle):
    _context: Context
    _scheduled: bool
    _when: float

    def __lt__(self, other: _TimerHandle) -> bool:  # type: ignore[override]
        return self._when < other._when

    def _run(self) -> None:
        process = self._context.get(_process)
        if process is not None and process.frozen:
            process.held.append(self)
        else:
            super()._run()


def _run_late(handle: asyncio.Handle) -> None:
    if not handle.cancelled():
        handle._run()


class Processes:
    """All simulated processes of a run. Made inside the loop that they run on.

    Args:
        ended: called with the name of a process that ended by itself, and its error if it failed.

    Attributes:
        leaked: tasks that outlived the process that started them, by more than a second.
    """

    def __init__(
        self, broker: MemoryBroker, ended: Callable[[str, BaseException | None], None]
    ) -> None:
        self._broker = broker
        self._ended = ended
        self._running: dict[str, _Process] = {}
        self.leaked: list[str] = []
        self._burials: list[asyncio.Task[None]] = []
        asyncio.get_running_loop().set_task_factory(_make_task)

    @property
    def running(self) -> tuple[str, ...]:
        """Names, in the order in which they were started."""
        return tuple(self._running)

    def start(self, name: str, body: Body, clock: Clock | None = None) -> None:
        """Start a process; of two that run at once each needs its own name."""
        process = self._running[name] = _Process()
        transport = self._broker.transport(name, clock)
        token = _process.set(process)
        try:
            process.main = asyncio.create_task(_run(body(transport, process.stop)), name=name)
        finally:
            _process.reset(token)
        process.main.add_done_callback(lambda main: self._done(name, process, main))

    def stop(self, name: str) -> None:
        """As SIGTERM: ask it to end by itself."""
        self._running[name].stop.set()

    def freeze(self, name: str, seconds: float) -> None:
        """As SIGSTOP, and SIGCONT after so long. Needs a `ProcessLoop`."""
        process = self._running[name]
        process.frozen = True
        asyncio.get_running_loop().call_later(seconds, process.thaw)

    async def kill(self, name: str) -> None:
        """As `kill -9`.

        Raises:
            RuntimeError: a task of the process swallows every cancellation.
        """
        process = self._running.pop(name)
        self._broker.kill(name)
        process.thaw()
        for _ in range(_MAX_ROUNDS):
            if not process.tasks:
                return
            for task in sorted(process.tasks, key=asyncio.Task.get_name):
                task.cancel()
            await asyncio.sleep(0)
        raise RuntimeError(f"{name} outlives its kill: {process.tasks}")

    def crash(self) -> NoReturn:
        """As a segmentation fault of the process that calls; told as its end, with an error."""
        name = next(name for name, process in self._running.items() if process is _process.get())
        self._broker.kill(name)
        asyncio.get_running_loop().call_soon(self._bury, name, context=Context())
        raise asyncio.CancelledError(f"process {name} crashed")

    def _bury(self, name: str) -> None:
        self._burials.append(asyncio.create_task(self.kill(name)))
        self._ended(name, RuntimeError("crashed"))

    def _done(self, name: str, process: _Process, main: asyncio.Task[None]) -> None:
        if self._running.get(name) is process:
            del self._running[name]
            self._ended(name, None if main.cancelled() else main.exception())
            asyncio.get_running_loop().call_later(1.0, self._look_for_leaks, name, process)

    def _look_for_leaks(self, name: str, process: _Process) -> None:
        self.leaked += [f"{name}: {task.get_name()}" for task in process.tasks]


async def _run(body: Awaitable[None]) -> None:
    await body


def _make_task(
    loop: asyncio.AbstractEventLoop,
    coro: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
    **options: Any,
) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **options)
    context: Context | None = options.get("context")
    process = _process.get() if context is None else context.get(_process)
    if process is not None:
        process.tasks.add(task)
        task.add_done_callback(process.tasks.discard)
    return task
