"""Simulated processes and the network between them and the broker: delays, stalls, cuts, kills.

Everything is drawn from one seeded generator and happens on the loop's clock, so that under
virtual time a seed is a schedule.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import TypeVar

from anabranch.runtime.clock import Clock

__all__ = ["Network", "Pipe", "Process"]

T = TypeVar("T")

_OUTSIDE = Context()
"""What travels belongs to no process any more: it goes on when that one is frozen or dead."""


class Network:
    """How long things take on their way.

    Args:
        latency_ms: bounds between which the time of each way is drawn evenly.
        stall_rate: the share of ways that take as long as `stall_ms` says instead.
        stall_ms: bounds of a stall.
        seed: of everything random in the broker.
    """

    def __init__(
        self,
        *,
        latency_ms: tuple[float, float] = (0.5, 0.5),
        stall_rate: float = 0.0,
        stall_ms: tuple[float, float] = (50.0, 1000.0),
        seed: int = 0,
    ) -> None:
        self.random = random.Random(seed)
        self._latency_ms = latency_ms
        self._stall_rate = stall_rate
        self._stall_ms = stall_ms

    def delay(self) -> float:
        """Seconds that one way takes."""
        stalled = self.random.random() < self._stall_rate
        return self.random.uniform(*(self._stall_ms if stalled else self._latency_ms)) / 1000.0


class Process:
    """One process with clients of the broker; it dies as a whole."""

    def __init__(self, name: str, network: Network, clock: Clock) -> None:
        self.name = name
        self.network = network
        self.clock = clock
        self.alive = True
        self._cut_until = 0.0
        self._pipes: list[Pipe] = []
        self._threads: list[asyncio.Task[None]] = []

    def check(self) -> None:
        """Called first by everything that a client does.

        Raises:
            CancelledError: the process was killed, so whatever still runs in it must end.
        """
        if not self.alive:
            raise asyncio.CancelledError(f"process {self.name} was killed")

    def arrival(self) -> float:
        """When what is sent now arrives, on the loop's clock, in either direction."""
        now = asyncio.get_running_loop().time()
        return max(now + self.network.delay(), self._cut_until)

    def after_delay(self, callback: Callable[[], None]) -> None:
        """Call `callback` when what is sent now arrives."""
        asyncio.get_running_loop().call_at(self.arrival(), callback, context=_OUTSIDE)

    async def call(self, effect: Callable[[], T]) -> T:
        """One round trip: `effect` happens on the broker, its result (or error) comes back.

        If the process dies while the request is on its way, it may happen all the same.
        """
        self.check()
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def arrive() -> None:
            if self.alive or self.network.random.random() < 0.5:
                try:
                    settle = _setter(answer, effect())
                except Exception as error:
                    settle = _raiser(answer, error)
                self.after_delay(settle)

        self.after_delay(arrive)
        result = await answer
        self.check()
        return result

    def pipe(self) -> Pipe:
        """A new ordered way to the broker."""
        pipe = Pipe(self)
        self._pipes.append(pipe)
        return pipe

    def thread(self, task: asyncio.Task[None]) -> None:
        """A client's background task, which dies with the process."""
        self._threads.append(task)

    def cut(self, seconds: float) -> None:
        """Nothing gets through in either direction for that long (what is on its way does)."""
        now = asyncio.get_running_loop().time()
        self._cut_until = max(self._cut_until, now + seconds)

    def kill(self) -> None:
        """As `kill -9`: of what is on its way, a part arrives."""
        self.alive = False
        for pipe in self._pipes:
            pipe.lose_some()
        for task in self._threads:
            task.cancel()


class Pipe:
    """Delivers in order, each after the network's delay: reordering is for other pipes."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._queue: deque[Callable[[], None]] = deque()
        self._at = 0.0

    def put(self, deliver: Callable[[], None]) -> None:
        """Call `deliver` when it arrives."""
        self._at = max(self._at, self._process.arrival())
        self._queue.append(deliver)
        asyncio.get_running_loop().call_at(self._at, self._next, context=_OUTSIDE)

    def lose_some(self) -> None:
        """Of what is on its way, only the first so many arrive."""
        keep = self._process.network.random.randint(0, len(self._queue))
        while len(self._queue) > keep:
            self._queue.pop()

    def _next(self) -> None:
        if self._queue:
            self._queue.popleft()()


def _setter(future: asyncio.Future[T], result: T) -> Callable[[], None]:
    return lambda: None if future.done() else future.set_result(result)


def _raiser(future: asyncio.Future[T], error: Exception) -> Callable[[], None]:
    return lambda: None if future.done() else future.set_exception(error)
