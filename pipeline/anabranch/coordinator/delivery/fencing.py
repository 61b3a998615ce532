"""Notices that the process stood still (SIGSTOP, a frozen machine): it may be a zombie now.

While it stood, the group may have given its partitions to others. Nothing more is handed to a
producer until a heartbeat with the present generation has proved that they are still its own
(as a commit would, but also while nothing is owned).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from anabranch.runtime.clock import Clock
from anabranch.runtime.supervisor import Stage

__all__ = ["Fencing"]


class Fencing:
    """Watches for gaps in the loop's clock.

    Args:
        limit_s: a longer gap makes us suspect; half the session timeout.
        confirm: proves that we are still in the group, or raises `GenerationLost`; False: not now,
            and nothing that is ours may be sent now either.
    """

    def __init__(
        self, clock: Clock, limit_s: float, confirm: Callable[[], Awaitable[bool]]
    ) -> None:
        self._clock = clock
        self._limit_s = limit_s
        self._last: float | None = None
        self._gaps = 0
        self._cleared = 0
        """Gaps after which we were still in the group."""
        self._confirm = confirm

    async def ensure_member(self) -> None:
        """Called before anything is handed to a producer; returns once we may.

        Raises:
            GenerationLost: the group went on without us.
        """
        self._check()
        while self._cleared < self._gaps:
            gaps = self._gaps
            if not await self._confirm():
                return
            self._cleared = gaps
            self._check()  # it may have stood still again meanwhile

    async def run(self, stage: Stage) -> None:
        """Stage: leave no gap where there is none."""
        while True:
            stage.beat()
            self._check()
            await asyncio.sleep(self._limit_s / 10)

    def _check(self) -> None:
        now = self._clock.monotonic()
        if self._last is not None and now - self._last > self._limit_s:
            self._gaps += 1
        self._last = now
