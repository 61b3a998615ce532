"""An event loop whose time is virtual: waiting costs nothing and every run is the same.

    def test_it() -> None:
        async def scenario() -> None:
            await asyncio.sleep(3600)  # returns at once, an hour later

        run(scenario())

When nothing is ready the clock moves to the next timer. When no timer is left either, nothing
can ever happen again: `DeadlockError` says who waits for what, instead of hanging.

There is no I/O under virtual time: opening a socket raises. `run_in_executor` (and so
`asyncio.to_thread`) runs the function inline, in no virtual time, so that blocking layers work
and stay deterministic; such a function must not wait for the loop.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor
from typing import Any, Final, TypeVar

from anabranch.errors import AnabranchError

__all__ = ["EPOCH_MS", "DeadlockError", "VirtualClock", "VirtualTimeLoop", "run"]

T = TypeVar("T")

EPOCH_MS: Final = 1_700_000_000_000.0
"""What a `VirtualClock` shows at virtual time zero, unless told otherwise."""

_MAX_TURNS: Final = 100_000


class DeadlockError(AnabranchError):
    """Nothing is ready and no timer is set, or time stands still while the loop spins."""


class VirtualClock:
    """A `Clock` on virtual time; each simulated process has its own wall clock."""

    def __init__(self, epoch_ms: float = EPOCH_MS, skew_ms: float = 0.0) -> None:
        self._base_ms = epoch_ms + skew_ms

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def time_ms(self) -> float:
        return self._base_ms + self.monotonic() * 1000.0

    def jump(self, by_ms: float) -> None:
        """Set the wall clock forwards (or backwards); the monotonic clock does not notice."""
        self._base_ms += by_ms


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop on virtual time, which starts at zero."""

    def __init__(self) -> None:
        self._virtual = _VirtualSelector(self._waiting)
        super().__init__(self._virtual)
        self._virtual.closed_to_io = True

    def time(self) -> float:
        return self._virtual.now

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Run `func` inline; see the module's text."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def _waiting(self) -> str:
        tasks = sorted(asyncio.all_tasks(self), key=lambda task: task.get_name())
        return "; ".join(map(_describe, tasks)) or "no task"


def run(
    main: Coroutine[Any, Any, T], loop_factory: Callable[[], VirtualTimeLoop] = VirtualTimeLoop
) -> T:
    """Run `main` to its end on a fresh virtual loop.

    Raises:
        DeadlockError: nothing can happen any more and `main` has not ended.
    """
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(main)


class _VirtualSelector(selectors.BaseSelector):
    """Where a real selector waits, this one moves the clock.

    It knows no files; only the loop's own wake-up pipe is registered (and never read: what is
    called from the loop's thread needs no waking).
    """

    def __init__(self, waiting: Callable[[], str]) -> None:
        self.now = 0.0
        self.closed_to_io = False
        self._waiting = waiting
        self._turns = 0
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise DeadlockError(
                f"nothing is ready and no timer is set at {self.now:.3f} s: {self._waiting()}"
            )
        self._turns = 0 if timeout > 0 else self._turns + 1
        self.now += max(timeout, 0.0)
        if self._turns > _MAX_TURNS:
            self._turns = 0  # the loop turns on while its tasks are cancelled
            raise DeadlockError(
                f"time stands still at {self.now:.3f} s while the loop spins: {self._waiting()}"
            )
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        if self.closed_to_io:
            raise NotImplementedError("there is no I/O under virtual time; use the memory broker")
        key = selectors.SelectorKey(fileobj, int(fileobj), events, data)
        self._keys[fileobj] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys


def _describe(task: asyncio.Task[Any]) -> str:
    """A task and the line where it waits."""
    frames = task.get_stack(limit=1)
    where = f"{frames[-1].f_code.co_qualname}:{frames[-1].f_lineno}" if frames else "its end"
    return f"{task.get_name()} waits in {where}"
