"""One committer per consumer: a lock that a rebalance takes and keeps.

From the revoked-callback to the assigned-callback nothing else is committed: a commit in
between would be refused, and the client library would answer that by rejoining.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

__all__ = ["CommitLock"]

_PATIENCE_S: Final = 5.0


class CommitLock:
    """Whose turn it is to commit."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self.held = False
        """True from revocation to assignment."""

    async def hold(self) -> None:
        """The group stops: wait for a commit under way, then let nobody else commit."""
        if not self.held:
            await self._lock.acquire()
            self.held = True

    def release(self) -> None:
        """The group goes on. Nothing happens if it was not held."""
        if self.held:
            self.held = False
            self._lock.release()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Commit inside; waits for the end of a rebalance."""
        async with self._lock:
            yield

    @asynccontextmanager
    async def turn_soon(self) -> AsyncIterator[bool]:
        """As `turn`, but gives False if a rebalance takes long: that commits by itself."""
        try:
            async with asyncio.timeout(_PATIENCE_S):  # wait_for may swallow a cancellation (3.11)
                await self._lock.acquire()
        except TimeoutError:
            yield False
            return
        try:
            yield True
        finally:
            self._lock.release()
