"""The built-in wrappers: what keeps a layer from hurting the pipeline."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from concurrent.futures import Executor
from inspect import iscoroutinefunction
from typing import Any, Final

from anabranch.errors import LayerError, LayerTimeout
from anabranch.events import MAX_DEPTH, Item, encode, is_deeper
from anabranch.layers import Ask, LayerSpec, Request, Result
from anabranch.middleware import Wrapper, fold

__all__ = ["BUILT_IN", "bounded", "guard", "timed"]


def guard(spec: LayerSpec, threads: Executor, wrappers: Sequence[Wrapper] = ()) -> Ask:
    """A layer as the worker calls it, with the user's wrappers outside the built-in ones."""
    return fold([*wrappers, *BUILT_IN], spec, _innermost(spec, threads))


def timed(spec: LayerSpec, ask: Ask) -> Ask:
    """End a layer at its deadline, or at its own `timeout_ms` if that is earlier."""
    own_s = math.inf if spec.timeout_ms is None else spec.timeout_ms / 1000

    async def ask_in_time(request: Request) -> Result:
        loop = asyncio.get_running_loop()
        until = min(request.deadline, loop.time() + own_s)
        scope = asyncio.timeout_at(until)
        try:
            async with scope:
                return await ask(request)
        except TimeoutError as error:
            if not scope.expired():
                raise  # the layer's own, not ours
            raise LayerTimeout(f"no answer within {request.remaining_ms:.0f} ms") from error

    return ask_in_time


def bounded(spec: LayerSpec, ask: Ask) -> Ask:
    """Refuse what is no list of items, or is larger than `max_bytes` when encoded."""

    async def ask_bounded(request: Request) -> Result:
        result = _checked(spec, await ask(request))
        encoded = encode(result)
        size_bytes = len(encoded)
        if is_deeper(encoded, MAX_RESULT_DEPTH):
            raise LayerError(f"the result is nested deeper than {MAX_RESULT_DEPTH}")
        if size_bytes > spec.max_bytes:
            raise LayerError(
                f"the result has {size_bytes:,} bytes, over max_bytes = {spec.max_bytes:,}"
            )
        return result

    return ask_bounded


MAX_RESULT_DEPTH: Final = MAX_DEPTH - 8
"""What a partial puts round a result must fit too, or its neighbours would be lost with it."""

BUILT_IN: Final[tuple[Wrapper, ...]] = (bounded, timed)


def _innermost(spec: LayerSpec, threads: Executor) -> Ask:
    ask = spec.layer.ask
    if iscoroutinefunction(ask):
        return ask

    async def ask_in_thread(request: Request) -> Any:
        return await asyncio.get_running_loop().run_in_executor(threads, ask, request)

    return ask_in_thread


def _checked(spec: LayerSpec, given: Any) -> Result:
    """What a layer gave, as a `Result` whose items are fit to be sent.

    Raises:
        LayerError: it is something else; the message says what.
    """
    result = given if isinstance(given, Result) else Result(items=given)
    if not isinstance(result.items, Sequence) or isinstance(result.items, str | bytes):
        raise LayerError(f"gave {type(given).__name__}; a layer gives a Result or a list of Item")
    if result.ttl_ms is not None and not _is_count(result.ttl_ms):
        raise LayerError(f"gave ttl_ms = {result.ttl_ms!r}; write whole milliseconds from 0 on")
    if isinstance(result.tags, str) or not isinstance(result.tags, Sequence):
        raise LayerError(f"gave tags = {result.tags!r}; write a list of strings")
    if not all(isinstance(tag, str) for tag in result.tags):
        raise LayerError("gave a tag that is no string")
    if result.complete not in (None, True, False):
        raise LayerError(f"gave complete = {result.complete!r}; write True, False or None")
    for item in result.items:
        if not isinstance(item, Item):
            raise LayerError(f"gave a list of {type(item).__name__}; its items must be Item")
        if not item.id or not isinstance(item.id, str):
            raise LayerError("gave an item without an id")
        if not isinstance(item.score, int | float) or not math.isfinite(item.score):
            raise LayerError(f"item {item.id!r} has the score {item.score!r}; write a finite one")
    return result


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53
