"""Layers begin at once, and those that do not wait cost no turn of the loop.

This is `eager_start` of `asyncio.Task`, which CPython has from 3.12 on. For 3.11 the first step is
made by hand, on behalf of a task that has not begun: it gets the rest, if there is any, and makes
the first steps of others until one waits.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from contextvars import Context, copy_context
from types import TracebackType
from typing import Any, TypeAlias

__all__ = ["EagerStart"]

Run: TypeAlias = Coroutine[Any, Any, None]

if sys.version_info >= (3, 12):

    class EagerStart:
        """Starts coroutines of one kind; call it where no task runs."""

        def __call__(self, run: Run) -> asyncio.Task[None] | None:
            """Make the first step; returns the task that makes the others, if there are any."""
            task = asyncio.Task(run, loop=asyncio.get_running_loop(), eager_start=True)
            return None if task.done() else task

else:

    class EagerStart:
        """Starts coroutines of one kind; call it where no task runs.

        Those that end at once have one `current_task()` with others of their kind, for one turn of
        the loop. One that waits has it to itself from then on.
        """

        def __init__(self) -> None:
            self._task: asyncio.Task[None] | None = None
            self._rest = _Rest()

        def __call__(self, run: Run) -> asyncio.Task[None] | None:
            """Make the first step; returns the task that makes the others, if there are any."""
            loop = asyncio.get_running_loop()
            task = self._task
            if task is None or task.done() or task.cancelling():
                self._rest = _Rest()
                task = self._task = loop.create_task(self._rest)
            context = copy_context()
            asyncio.tasks._enter_task(loop, task)
            try:
                waits_for = context.run(run.send, None)
            except StopIteration:
                return None
            finally:
                asyncio.tasks._leave_task(loop, task)
            self._rest.take(run, context, waits_for)
            self._task = None
            return task


class _Rest(Coroutine[Any, Any, None]):
    """What is left of a coroutine after its first step, in its own context; at first nothing."""

    _run: Run | None = None
    _context: Context
    _waits_for: Any = None
    _is_waiting = False
    """For what the first step gave, which the task does not know yet."""

    def take(self, run: Run, context: Context, waits_for: Any) -> None:
        """The first step was made: the coroutine waits for this future, or for the next turn."""
        self._run, self._context = run, context
        self._waits_for, self._is_waiting = waits_for, True

    def send(self, value: None) -> Any:
        if self._run is None:
            raise StopIteration
        if self._is_waiting:
            self._is_waiting = False
            return self._waits_for
        return self._context.run(self._run.send, value)

    def throw(
        self,
        error: Any,
        value: BaseException | object = None,
        traceback: TracebackType | None = None,
    ) -> Any:
        if self._run is None:
            raise error
        if self._is_waiting:  # cancelled before the task knew for what it waits
            self._is_waiting = False
            if self._waits_for is not None and self._waits_for.cancel():
                return self._waits_for
        return self._context.run(self._run.throw, error)

    def close(self) -> None:
        if self._run is not None:
            self._run.close()

    def __await__(self) -> Any:
        raise NotImplementedError("it is a task's")

    def __getattr__(self, name: str) -> Any:
        """Frames and state, for whoever looks at the task's coroutine."""
        return getattr(self._run, name)
