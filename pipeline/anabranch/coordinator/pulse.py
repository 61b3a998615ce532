"""Notices that the process stood still (SIGSTOP, a frozen machine): it may be a zombie now.

While it stood, the group may have given its partitions to others. Nothing more is handed to a
producer until a commit with the present generation has proved that they are still its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from anabranch.clock import Clock
from anabranch.supervise import Stage

__all__ = ["Pulse"]


class Pulse:
    """Watches for gaps in the loop's clock.

    Args:
        limit_s: a longer gap makes us suspect; half the session timeout.
    """

    def __init__(self, clock: Clock, limit_s: float) -> None:
        self._clock = clock
        self._limit_s = limit_s
        self._last: float | None = None
        self._suspect = False
        self.confirm: Callable[[], Awaitable[None]] = _nothing_to_confirm
        """Proves that we are still in the group, or raises `GenerationLost`."""

    async def trust(self) -> None:
        """Called before anything is handed to a producer; returns once we may.

        Raises:
            GenerationLost: the group went on without us.
        """
        self._check()
        if self._suspect:
            await self.confirm()
            self._suspect = False

    async def run(self, stage: Stage) -> None:
        """Stage: leave no gap where there is none."""
        while True:
            stage.beat()
            self._check()
            await asyncio.sleep(self._limit_s / 10)

    def _check(self) -> None:
        now = self._clock.monotonic()
        if self._last is not None and now - self._last > self._limit_s:
            self._suspect = True
        self._last = now


async def _nothing_to_confirm() -> None: ...
