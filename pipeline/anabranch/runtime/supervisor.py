"""Background stages of a coordinator, a worker or a client, and what happens when one dies.

A stage is a coroutine that stamps every turn of its loop. One that fails, or has not stamped
for too long, ends the `async with` body it belongs to with `StageFailed`, and with it whatever
else waits. Cancellation is not failure.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeAlias, TypeVar

from anabranch.errors import BrokerError, BrokerUnavailable, StageFailed
from anabranch.kafka.availability import absence

__all__ = ["Service", "Stage", "State", "Supervisor", "patience_s", "signalled", "until"]

T = TypeVar("T")

log = logging.getLogger(__name__)

_WATCH_S: Final = 1.0
_HOPELESS_S: Final = 3.0
"""For closing clients whose broker does not answer."""

State: TypeAlias = Literal["starting", "ready", "draining", "stopped"]


async def until(condition: Callable[[], object], every_s: float = 0.01) -> None:
    """Wait for something that many places change; for starts and ends, not for hot paths."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(every_s)


async def signalled(event: asyncio.Event, timeout_s: float = 1.0) -> bool:
    """Wait for an event, but not for longer than a stage may go without a stamp."""
    if event.is_set():
        return True
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return False
    return True


def patience_s(request_timeout_ms: int) -> float:
    """When a stage is stuck: its turn waits for the broker a few times, each time bounded."""
    return 4 * request_timeout_ms / 1000


class Stage:
    """One supervised loop; `beat` is its stamp."""

    __slots__ = ("_loop", "last", "name")

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop) -> None:
        self.name = name
        self._loop = loop
        self.last = loop.time()

    def beat(self) -> None:
        """One more turn."""
        self.last = self._loop.time()


class Supervisor:
    """Runs stages beside the body of an `async with`.

    Args:
        owner: named in errors, e.g. `coordinator c1`.
        stuck_after_s: a stage without a stamp for so long is stuck. Every wait inside a turn
            must be bounded below it.
        bootstrap: of the broker that stages work with; if it is away, that is why they die.
    """

    def __init__(self, owner: str, stuck_after_s: float = 90.0, bootstrap: str = "") -> None:
        self._owner = owner
        self._bootstrap = bootstrap
        self._stuck_after_s = stuck_after_s
        self._tasks: dict[Stage, asyncio.Task[None]] = {}
        self._watcher: asyncio.Task[None] | None = None
        self._body: asyncio.Task[object] | None = None
        self._stopping = False
        self._failed = asyncio.Event()
        self.failure: StageFailed | None = None
        self.on_failure: Callable[[], None] = _nobody_waits
        """Called when there is one: whoever waits for something must be told."""

    def attach(self) -> None:
        """Remember the running task as the body that a failure ends."""
        self._body = asyncio.current_task()
        self._watcher = asyncio.create_task(self._watch(), name=f"{self._owner}: watch")

    def start(self, name: str, run: Callable[[Stage], Awaitable[None]]) -> None:
        """Run a stage until it fails or is stopped; one that ends by itself has failed, too."""
        stage = Stage(name, asyncio.get_running_loop())

        async def body() -> None:
            await run(stage)

        task = asyncio.create_task(body(), name=f"{self._owner}: {name}")
        self._tasks[stage] = task
        task.add_done_callback(lambda done: self._ended(stage, done))

    def fail(self, error: BaseException, what: str = "") -> None:
        """End the body; the first failure is the one that is told."""
        if self.failure is not None:
            return
        where = f"{self._owner}: {what}" if what else self._owner
        why = str(error) or type(error).__name__
        away = str(absence(self._bootstrap)) if isinstance(error, BrokerError) else ""
        if away and self._bootstrap not in why:
            why = f"{away} ({why})"
        self.failure = StageFailed(f"{where}: {why}")
        self.failure.__cause__ = error
        self._failed.set()
        self.on_failure()
        if self._body is not None and not self._stopping:
            self._body.cancel()

    def check(self) -> None:
        """
        Raises:
            StageFailed: there was a failure; a new one for each caller, with the same words.
        """
        if self.failure is not None:
            raise StageFailed(*self.failure.args) from self.failure.__cause__

    async def wait_failed(self) -> StageFailed:
        """The failure, once there is one."""
        await self._failed.wait()
        assert self.failure is not None
        return self.failure

    async def unless_failed(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for something, but not longer than stages live that could bring it.

        Raises:
            StageFailed: one of them died.
        """
        wanted, failed = asyncio.ensure_future(work), asyncio.ensure_future(self._failed.wait())
        try:
            await asyncio.wait({wanted, failed}, return_when=asyncio.FIRST_COMPLETED)
            if not wanted.done():
                self.check()
            return await wanted
        finally:
            wanted.cancel()
            failed.cancel()

    async def stop(self) -> None:
        """Cancel what still runs and wait for its end.

        The first step of closing. The rest of it must not be cancelled by a failure: clients
        left open would stay in their group, and keep its partitions from everybody.
        """
        self._stopping = True
        tasks = [*self._tasks.values(), *([self._watcher] if self._watcher else [])]
        for task in tasks:
            task.cancel()
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
        except asyncio.CancelledError:
            if self.failure is None:
                raise
            # Ours, for a failure at the very end of the body.
            await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()

    async def closed(self, *closing: Awaitable[object]) -> None:
        """Wait until everything is closed; not for long if it is the broker that is away."""
        cause = self.failure.__cause__ if self.failure is not None else None
        hopeless = isinstance(cause, BrokerUnavailable) or bool(str(absence(self._bootstrap)))
        with suppress(TimeoutError):
            async with asyncio.timeout(_HOPELESS_S if hopeless else None):
                for error in await asyncio.gather(*closing, return_exceptions=True):
                    if isinstance(error, Exception):
                        log.debug("%s, while closing: %s", self._owner, error)

    def settle(self) -> None:
        """At the end of the body: raise the failure, if there was one, instead of cancelling.

        Raises:
            StageFailed: with the stage's error as its cause.
        """
        if self.failure is None:
            return
        body = asyncio.current_task()
        if body is not None and body is self._body and body.cancelling():
            body.uncancel()
        raise self.failure

    def _ended(self, stage: Stage, task: asyncio.Task[None]) -> None:
        self._tasks.pop(stage, None)
        if self._stopping:
            return
        error = None if task.cancelled() else task.exception()
        self.fail(error or RuntimeError("it ended by itself"), f"stage {stage.name} died")

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(_WATCH_S)
            late = loop.time() - before - _WATCH_S
            for stage in self._tasks:
                stage.last += late  # a suspended process is not a stuck stage
                silent = loop.time() - stage.last
                if silent > self._stuck_after_s:
                    error = TimeoutError(f"no turn for {silent:.0f} s")
                    self.fail(error, f"stage {stage.name} is stuck")


def _nobody_waits() -> None: ...


class Service(ABC):
    """The life of a coordinator or a worker: start, run beside the body, drain, close.

    A stage that dies raises `StageFailed` in the body. What failed is not drained.
    """

    _supervisor: Supervisor
    _state: State = "starting"

    @property
    def state(self) -> State:
        """How far it is in its life."""
        return self._state

    async def wait_failed(self) -> StageFailed:
        """Wait until a background stage has died or got stuck, and return the failure.

        For whoever is not in the body, as a server that has to end itself then.
        """
        return await self._supervisor.wait_failed()

    def _started(self) -> None:
        """It works now, unless it was told to stop meanwhile."""
        if self._state == "starting":
            self._state = "ready"

    @abstractmethod
    async def _start(self) -> None:
        """Connect, and start the stages."""

    @abstractmethod
    async def _drain(self) -> None:
        """Finish what was begun, within a bound."""

    @abstractmethod
    async def _close(self) -> None:
        """Stop the stages and let go of everything, however far the start came."""

    async def __aenter__(self) -> Self:
        self._supervisor.attach()
        try:
            await self._start()
        except BaseException:
            await self._close()
            self._supervisor.settle()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self._supervisor.failure is None:
                await self._drain()
        finally:
            await self._close()
            self._supervisor.settle()
