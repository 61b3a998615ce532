"""A layer that stands, or takes its time, for as long as it is asked to."""

from __future__ import annotations

import asyncio
import time

from anabranch.layers.api import Item, Request


class Slow:
    """`plugin = "slow_layers:Slow"`; `blocks_s` stops its whole process, `takes_s` only itself."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def ask(self, request: Request) -> list[Item]:
        print("asked", flush=True)
        time.sleep(request.params.get("blocks_s", 0))  # noqa: ASYNC251
        await asyncio.sleep(request.params.get("takes_s", 0))
        return [Item(f"urn:{self.name}", 1.0)]
