"""The built-in wrappers: what keeps a layer from hurting the pipeline."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from inspect import iscoroutinefunction
from typing import Any, Final

import msgspec

from anabranch.contract.bounds import MAX_ID_CHARS, MAX_SCORE, MAX_TAG_CHARS, MAX_TAGS
from anabranch.contract.events import MAX_DEPTH, Item, encode, is_deeper
from anabranch.errors import LayerError, LayerTimeout
from anabranch.layers.api import Ask, LayerSpec, Request, Result
from anabranch.layers.middleware import Wrapper, fold
from anabranch.worker.threads import LayerThreads

__all__ = ["bounded", "checked", "guard", "in_time", "timed"]


_READER: Final = msgspec.json.Decoder(Result)


def guard(spec: LayerSpec, threads: LayerThreads, wrappers: Sequence[Wrapper] = ()) -> Ask:
    """A layer as the worker calls it.

    The user's wrappers stand between ours: they get a `Result` from within, and what they give,
    and how long they take, is held to the bounds from without.

    Raises:
        ConfigError: a wrapper gave no function.
    """
    inside = [checked, timed] if wrappers else [timed]
    return fold([bounded, in_time, *wrappers, *inside], spec, _innermost(spec, threads))


def in_time(spec: LayerSpec, ask: Ask) -> Ask:
    """End a layer, wrappers included, at its deadline."""

    async def ask_in_time(request: Request) -> Result:
        scope = asyncio.timeout_at(request.deadline)
        return await _within(scope, ask, request, request.remaining_ms)

    return ask_in_time


def timed(spec: LayerSpec, ask: Ask) -> Ask:
    """End a layer after its own `timeout_ms`, if it has one."""
    own_ms = spec.timeout_ms
    if own_ms is None:
        return ask

    async def ask_timed(request: Request) -> Result:
        return await _within(asyncio.timeout(own_ms / 1000), ask, request, own_ms)

    return ask_timed


async def _within(scope: asyncio.Timeout, ask: Ask, request: Request, within_ms: float) -> Result:
    try:
        async with scope:
            return await ask(request)
    except TimeoutError as error:
        if not scope.expired():
            raise  # the layer's own, not ours
        raise LayerTimeout(f"no answer within {within_ms:.0f} ms") from error


def checked(spec: LayerSpec, ask: Ask) -> Ask:
    """What a layer gave, as a `Result`: wrappers need not know what else a layer may give."""

    async def ask_checked(request: Request) -> Result:
        return _checked(await ask(request))

    return ask_checked


def bounded(spec: LayerSpec, ask: Ask) -> Ask:
    """Refuse what is no list of items, or is larger than `max_bytes` when encoded.

    What it gives is a copy, as others will read it: however odd the layer's own objects are, and
    whatever becomes of them later, the partial that they would have been part of can be sent.
    """

    async def ask_bounded(request: Request) -> Result:
        try:
            encoded = encode(_checked(await ask(request)))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise LayerError(f"the result cannot be encoded: {error}") from None
        size_bytes = len(encoded)
        if is_deeper(encoded, MAX_RESULT_DEPTH):
            raise LayerError(f"the result is nested deeper than {MAX_RESULT_DEPTH}")
        if size_bytes > spec.max_bytes:
            raise LayerError(
                f"the result has {size_bytes:,} bytes, over max_bytes = {spec.max_bytes:,}"
            )
        try:
            return _READER.decode(encoded)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise LayerError(f"the result cannot be read by others: {error}") from None

    return ask_bounded


MAX_RESULT_DEPTH: Final = MAX_DEPTH - 8
"""What a partial puts round a result must fit too, or its neighbours would be lost with it."""


def _innermost(spec: LayerSpec, threads: LayerThreads) -> Ask:
    ask = spec.layer.ask
    if iscoroutinefunction(ask):
        return ask

    async def ask_in_thread(request: Request) -> Any:
        return await threads.run(partial(ask, request))

    return ask_in_thread


def _checked(given: Any) -> Result:
    """What a layer gave, as a `Result` whose items are fit to be sent.

    Raises:
        LayerError: it is something else; the message says what.
    """
    result = given if isinstance(given, Result) else Result(items=given)
    if not isinstance(result.items, Sequence) or isinstance(result.items, str | bytes):
        raise LayerError(
            f"the layer, or a wrapper round it, gave {type(given).__name__}; it has to be a Result "
            f"or a list of Item"
        )
    if result.ttl_ms is not None and not _is_count(result.ttl_ms):
        raise LayerError(f"gave ttl_ms = {result.ttl_ms!r}; write whole milliseconds from 0 on")
    if isinstance(result.tags, str) or not isinstance(result.tags, Sequence):
        raise LayerError(f"gave tags = {result.tags!r}; write a list of strings")
    if len(result.tags) > MAX_TAGS:
        raise LayerError(f"gave {len(result.tags):,} tags; {MAX_TAGS:,} is the most")
    if not all(isinstance(tag, str) and len(tag) <= MAX_TAG_CHARS for tag in result.tags):
        raise LayerError(f"gave a tag that is no string of at most {MAX_TAG_CHARS:,} characters")
    if result.complete not in (None, True, False):
        raise LayerError(f"gave complete = {result.complete!r}; write True, False or None")
    for item in result.items:
        if not isinstance(item, Item):
            raise LayerError(f"gave a list of {type(item).__name__}; its items must be Item")
        if not item.id or not isinstance(item.id, str):
            raise LayerError("gave an item without an id")
        if len(item.id) > MAX_ID_CHARS:
            raise LayerError(f"gave an id of {len(item.id):,} characters, over {MAX_ID_CHARS:,}")
        if not isinstance(item.score, int | float) or not abs(item.score) <= MAX_SCORE:
            raise LayerError(f"item {item.id!r} has the score {item.score!r}; write a finite one")
    return result


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53
