"""How a synthetic layer behaves: latency, errors, hanging, burning CPU."""

from __future__ import annotations

import asyncio
import math
import random
import threading
import time
from collections.abc import Callable
from statistics import NormalDist
from typing import Annotated, Literal

from msgspec import Meta, Struct

from anabranch import Item, LayerError, Request, Result
from anabranch_synthetic.content import expected_items

__all__ = ["Synthetic", "SyntheticConfig"]

Span = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]

_NORMAL = NormalDist()


class SyntheticConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`[layers.<name>]` of `plugin = "synthetic"`."""

    latency: Literal["constant", "lognormal", "uniform"] = "constant"
    latency_ms: Span = 0.0
    """The constant, the lognormal's median, or the middle of the uniform range."""
    sigma: Span = 0.5
    """Of the lognormal: standard deviation of the latency's logarithm."""
    spread_ms: Span = 0.0
    """Half the width of the uniform range."""
    jitter_ms: Span = 0.0
    """Up to this much more, uniformly, whatever the distribution."""
    error_rate: Share = 0.0
    transient: bool = True
    """Whether the errors say that asking again may help."""
    hang_rate: Share = 0.0
    """Share of requests that are never answered (until cancelled, or the layer stops)."""
    items: Annotated[int, Meta(ge=0)] = 10
    item_bytes: Annotated[int, Meta(ge=0)] = 100
    cpu_ms: Span = 0.0
    """CPU time burnt per request, after the latency."""
    blocking: bool = False
    """Wait and burn in a thread; otherwise on the event loop, which burning blocks."""
    seed: int = 0


class Synthetic:
    """A layer with the latency, errors, load and content that its `Config` says."""

    Config = SyntheticConfig

    def __init__(self, name: str, config: SyntheticConfig) -> None:
        self.name = name
        self.config = config
        self.ask: Callable[[Request], object] = (
            self._ask_blocking if config.blocking else self._ask_async
        )
        self._stopped = threading.Event()
        self._random = random.Random(config.seed)

    async def start(self) -> None:
        """Begin the sequence of draws anew."""
        self._stopped.clear()
        self._random.seed(self.config.seed)

    async def stop(self) -> None:
        """Release the threads of blocking requests that hang."""
        self._stopped.set()

    async def _ask_async(self, request: Request) -> Result:
        latency_ms, hangs, fails = self._draw()
        if hangs:
            await asyncio.Event().wait()
        await asyncio.sleep(latency_ms / 1000)
        _burn(self.config.cpu_ms)
        return self._answer(request, fails)

    def _ask_blocking(self, request: Request) -> Result:
        latency_ms, hangs, fails = self._draw()
        self._stopped.wait(None if hangs else latency_ms / 1000)
        _burn(self.config.cpu_ms)
        return self._answer(request, fails)

    def _draw(self) -> tuple[float, bool, bool]:
        """Latency in milliseconds, whether this request hangs, whether it fails.

        The same number of draws each time: changing one rate leaves the others' sequence alone.
        """
        config, draw = self.config, self._random
        normal = _NORMAL.inv_cdf(draw.random() or 0.5)
        uniform, jitter = draw.uniform(-1, 1), draw.random()
        hangs, fails = draw.random() < config.hang_rate, draw.random() < config.error_rate
        latency_ms = config.latency_ms
        if config.latency == "lognormal":
            latency_ms *= math.exp(config.sigma * normal)
        elif config.latency == "uniform":
            latency_ms = max(0.0, latency_ms + config.spread_ms * uniform)
        return latency_ms + config.jitter_ms * jitter, hangs, fails

    def _answer(self, request: Request, fails: bool) -> Result:
        if fails:
            raise LayerError(f"{self.name} fails as configured", transient=self.config.transient)
        items: list[Item] = expected_items(self, request)
        return Result(items, complete=len(items) == self.config.items)


def _burn(cpu_ms: float) -> None:
    """Spend CPU time of this thread (not wall-clock time: waiting for a core does not count)."""
    end = time.thread_time() + cpu_ms / 1000
    while time.thread_time() < end:
        pass
