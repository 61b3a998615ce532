"""The layers that Anabranch runs in these benchmarks; they say what those of the peers say."""

from __future__ import annotations

import asyncio

from msgspec import Struct

from anabranch import Item, Request, Result

ITEMS = 3


class ScatterConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`[layers.<name>]` of `plugin = "scatter_layers:Scatter"`."""

    delay_ms: int = 0


class Scatter:
    """Three items about what is asked, after waiting for `delay_ms`."""

    Config = ScatterConfig

    def __init__(self, name: str, config: ScatterConfig) -> None:
        self.name = name
        self._delay_s = config.delay_ms / 1000

    async def ask(self, request: Request) -> Result:
        if self._delay_s:
            await asyncio.sleep(self._delay_s)
        n = request.params["n"]
        items = [Item(f"urn:{self.name}:{n}:{i}", 1.0 / (i + 1)) for i in range(ITEMS)]
        return Result(items, complete=True)
