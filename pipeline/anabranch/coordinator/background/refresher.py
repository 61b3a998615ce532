"""Beside the work: what will expire before long is fetched anew, if that is configured."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from anabranch.coordinator.delivery.publisher import Publisher
from anabranch.coordinator.query.speculation import Speculation
from anabranch.runtime.containment import contained, ignore
from anabranch.runtime.supervisor import Stage

__all__ = ["Refresher"]

_INTERVAL_S: Final = 1.0


class Refresher:
    """Drives `Speculation`."""

    def __init__(
        self, speculation: Speculation, publisher: Publisher, now_ms: Callable[[], float]
    ) -> None:
        self._speculation = speculation
        self._publisher = publisher
        self._now_ms = now_ms

    async def run(self, stage: Stage) -> None:
        """Stage: one look a second, and send what it brings, or what questions did."""
        while True:
            stage.beat()
            with contained(ignore):
                self._speculation.refresh(self._now_ms())
            await self._publisher.flush()
            await asyncio.sleep(_INTERVAL_S)
