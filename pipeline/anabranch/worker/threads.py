"""The threads of one blocking layer: one that hangs costs its own layer only, and never the exit.

The standard pool's threads are waited for when the interpreter ends, whoever shuts the pool down;
these are daemons.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar

from anabranch.errors import LayerError

__all__ = ["LayerThreads"]

T = TypeVar("T")

_Work = tuple[Future[Any], Callable[[], Any]]
_END: Final = None


class LayerThreads(Executor):
    """Threads that are started when they are needed, at most so many.

    Args:
        name: of the layer.
    """

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._work: SimpleQueue[_Work | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._started = 0
        self.hanging = 0
        """Calls under way that nobody waits for any more."""

    async def run(self, call: Callable[[], Any]) -> Any:
        """What a blocking call gives.

        Raises:
            LayerError: every thread hangs in a call that nobody waits for any more.
        """
        if self.hanging >= self._most:
            raise LayerError(f"all {self._most} threads of the layer hang", transient=True)
        under_way = _Call(call, self)
        try:
            return await asyncio.get_running_loop().run_in_executor(self, under_way)
        except asyncio.CancelledError:
            self.note(under_way, left=True)
            raise

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()
        self._work.put((future, partial(fn, *args, **kwargs)))
        if not self._idle.acquire(blocking=False) and self._started < self._most:
            self._started += 1
            name = f"layer {self._name} {self._started}"
            threading.Thread(target=self._serve, name=name, daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the threads end after the calls that they are in; waits for none."""
        for _ in range(self._started):
            self._work.put(_END)

    def _serve(self) -> None:
        while (work := self._next()) is not _END:
            future, call = work
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except StopIteration as error:  # no future of asyncio takes it
                future.set_exception(RuntimeError(f"the layer raised {error!r}"))
            except BaseException as error:  # whatever a layer raises is for whoever asked it
                future.set_exception(error)
            del future, call, work

    def _next(self) -> _Work | None:
        try:
            return self._work.get_nowait()
        except Empty:
            self._idle.release()
            return self._work.get()

    def note(self, call: _Call, **what: bool) -> None:
        """A call has begun or ended in its thread, or its waiter left, in whichever order."""
        with self._lock:
            hung = call.hangs
            for name, value in what.items():
                setattr(call, name, value)
            self.hanging += call.hangs - hung


class _Call:
    """One call, in a thread or on its way to one."""

    __slots__ = ("_call", "_threads", "begun", "ended", "left")

    def __init__(self, call: Callable[[], Any], threads: LayerThreads) -> None:
        self._call = call
        self._threads = threads
        self.begun = self.ended = self.left = False

    @property
    def hangs(self) -> bool:
        """It goes on, and nobody waits for it."""
        return self.begun and self.left and not self.ended

    def __call__(self) -> Any:
        self._threads.note(self, begun=True)
        try:
            return self._call()
        finally:
            self._threads.note(self, ended=True)
