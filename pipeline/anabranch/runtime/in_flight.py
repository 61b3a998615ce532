"""What is on its way to the broker, and what happens if it does not arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from anabranch.errors import RecordRefused

__all__ = ["InFlight"]

T = TypeVar("T")


class InFlight:
    """Records and tasks that have to end before partitions, or a worker, are let go.

    Args:
        fail: called with the error when one failed, and what that was; the instance must end.
    """

    def __init__(self, fail: Callable[[BaseException, str], None]) -> None:
        self._fail = fail
        self._all: set[asyncio.Future[Any]] = set()

    @property
    def idle(self) -> bool:
        """Nothing is on its way."""
        return not self._all

    def track(
        self,
        sent: asyncio.Future[T],
        acked: Callable[[T], None],
        refused: Callable[[RecordRefused], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        """A record, or a batch; `acked` is called once the broker has it, `refused` run if not."""

        def done(sent: asyncio.Future[T]) -> None:
            self._all.discard(sent)
            error = None if sent.cancelled() else sent.exception()
            if refused is not None and isinstance(error, RecordRefused):
                self.run(refused(error))
            elif self.arrived(sent):
                acked(sent.result())

        self._all.add(sent)
        sent.add_done_callback(done)

    def run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Something that takes several steps, beside everything else."""
        task = asyncio.ensure_future(work)
        self._all.add(task)
        task.add_done_callback(self._ran)
        return task

    async def drain(self, timeout_s: float) -> None:
        """Wait for the end of what is on its way, and of what that brings, at most so long."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        while self._all and loop.time() < until:
            await asyncio.wait(set(self._all), timeout=until - loop.time())

    def arrived(self, sent: asyncio.Future[Any]) -> bool:
        """False, and the end of the instance, if a record did not."""
        if sent.cancelled():
            return False
        error = sent.exception()
        if error is not None:
            self._fail(error, "a record was not acknowledged")
        return error is None

    def _ran(self, task: asyncio.Task[None]) -> None:
        self._all.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error, "")
