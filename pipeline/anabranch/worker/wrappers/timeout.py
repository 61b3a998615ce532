"""A layer's own timeout; the deadline of the task is the executor's."""

from __future__ import annotations

import asyncio

from anabranch.errors import LayerTimeout
from anabranch.layers.api import Ask, LayerSpec, Request, Result

__all__ = ["no_answer", "timed"]


def timed(spec: LayerSpec, ask: Ask) -> Ask:
    """End a layer after its own `timeout_ms`, if it has one."""
    own_ms = spec.timeout_ms
    if own_ms is None:
        return ask

    async def ask_timed(request: Request) -> Result:
        scope = asyncio.timeout(own_ms / 1000)
        try:
            async with scope:
                return await ask(request)
        except TimeoutError as error:
            if not scope.expired():
                raise  # the layer's own, not ours
            raise LayerTimeout(no_answer(own_ms)) from error

    return ask_timed


def no_answer(within_ms: float) -> str:
    """What is said of a layer that took too long."""
    return f"no answer within {within_ms:.0f} ms"
