"""What a plugin implements: a layer gets a `Request` and gives a `Result`.

Any async function is a layer:

    @layer("orders")
    async def orders(request: Request) -> list[Item]: ...

So is any object with `async def ask(request)` (runs on the event loop) or `def ask(request)`
(blocking: runs in a thread). A plugin with settings is a class with a `Config` Struct; it is
built as `Plugin(name, config)` from `[layers.<name>]`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from inspect import iscoroutinefunction
from typing import Any, Protocol, runtime_checkable

from msgspec import Struct

from anabranch.contract.events import Item, LayerDescriptor

__all__ = [
    "Ask",
    "Invalidate",
    "Item",
    "Layer",
    "LayerSpec",
    "Request",
    "Result",
    "describe",
    "layer",
]


class Request(Struct, frozen=True, gc=False):
    """One question to one layer.

    `deadline` is the loop's monotonic clock in seconds (compare with `loop.time()`), less a
    reserve for joining; `remaining_ms` is the same span at the moment the layer was called.
    """

    type: str
    params: dict[str, Any]
    scope: str
    limit: int
    deadline: float
    remaining_ms: float
    shard: int = 0
    shards: int = 1
    attempt: tuple[int, int] = (0, 1)


class Result(Struct, frozen=True):
    """What a layer found, best first.

    Attributes:
        complete: nothing more exists beyond these items; None means "fewer than `limit` came".
        ttl_ms: how long this result may be served from cache; None means the layer's own.
        tags: names under which this result can be invalidated.
    """

    items: Sequence[Item] = ()
    complete: bool | None = None
    ttl_ms: int | None = None
    tags: Sequence[str] = ()


Answerable = Result | Sequence[Item]
Ask = Callable[[Request], Awaitable[Result]]
"""A layer as the worker calls it: blocking ones already wrapped, sequences already a Result."""


class Invalidate(Protocol):
    """What a layer is given by `watch`, to have its own cached results forgotten."""

    def __call__(self, *tags: str) -> None:
        """Forget those of its results that have any of these tags; without tags, all of them.

        Returns at once, from any thread; it is done within seconds. What was being fetched
        meanwhile is forgotten too: change first what is answered from, then call this.

        Raises:
            TypeError: a tag is no string.
        """
        ...


@runtime_checkable
class Layer(Protocol):
    """A retrieval back end. `ask` may be `async def` or a plain (blocking) `def`.

    Optional methods, called once each: `def watch(invalidate)` first, for layers that notice when
    what they gave is true no more (`Invalidate`); `async def start()` before the first request
    and `async def stop()` after the last.
    """

    name: str

    def ask(self, request: Request) -> Any:
        """Answer with a `Result` or a sequence of `Item`.

        Raises:
            LayerError: with `transient=True` if asking again may help.
        """
        ...


class LayerSpec(Struct, frozen=True):
    """A layer together with the settings of `[layers.<name>]` that are not the plugin's own."""

    layer: Layer
    group: str = "default"
    shards: int = 1
    ttl_ms: int = 300_000
    weight: float = 1.0
    timeout_ms: int | None = None
    max_bytes: int = 512_000


class _FunctionLayer:
    """An async (or blocking) function in the shape of a `Layer`."""

    def __init__(self, name: str, function: Callable[[Request], Any]) -> None:
        self.name = name
        self.ask = function


def layer(name: str) -> Callable[[Callable[[Request], Any]], Layer]:
    """Make a layer out of a function of a `Request`."""

    def wrap(function: Callable[[Request], Any]) -> Layer:
        return _FunctionLayer(name, function)

    return wrap


def describe(spec: LayerSpec) -> LayerDescriptor:
    """What coordinators are told of a layer."""
    return LayerDescriptor(
        layer=spec.layer.name,
        group=spec.group,
        shards=spec.shards,
        ttl_ms=spec.ttl_ms,
        weight=spec.weight,
        mode="async" if iscoroutinefunction(spec.layer.ask) else "thread",
    )
