"""A layer as the worker calls it: the built-in wrappers and a user's own, in their order."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from inspect import iscoroutinefunction
from typing import Any

from anabranch.layers.api import Ask, LayerSpec, Request
from anabranch.layers.middleware import Wrapper, fold
from anabranch.worker.threads import LayerThreads
from anabranch.worker.wrappers.bounds import bounded, checked
from anabranch.worker.wrappers.timeout import timed

__all__ = ["guard"]


def guard(spec: LayerSpec, threads: LayerThreads, wrappers: Sequence[Wrapper] = ()) -> Ask:
    """A layer within its wrappers, the first in the list outermost.

    The user's wrappers stand between ours: they get a `Result` from within, and what they give is
    held to the bounds from without. The executor ends it all at the deadline.

    Raises:
        ConfigError: a wrapper gave no function.
    """
    inside = [checked, timed] if wrappers else [timed]
    return fold([bounded, *wrappers, *inside], spec, _awaitable(spec, threads))


def _awaitable(spec: LayerSpec, threads: LayerThreads) -> Ask:
    """A layer's own `ask`; a blocking one in a thread."""
    ask = spec.layer.ask
    if iscoroutinefunction(ask):
        return ask

    async def ask_in_thread(request: Request) -> Any:
        return await threads.run(partial(ask, request))

    return ask_in_thread
