"""What a layer gives is held to its type, its size and its depth, and encoded, once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from anabranch.contract.bounds import MAX_ID_CHARS, MAX_SCORE, MAX_TAG_CHARS, MAX_TAGS
from anabranch.contract.codec import MAX_DEPTH, encode
from anabranch.contract.encoded import EncodedItem, is_doubtful
from anabranch.contract.events import Item
from anabranch.contract.nesting import is_deeper
from anabranch.errors import LayerError
from anabranch.layers.api import Ask, LayerSpec, Request, Result

__all__ = ["bounded", "checked"]

MAX_RESULT_DEPTH: Final = MAX_DEPTH - 8
"""What a partial puts round a result must fit too, or its neighbours would be lost with it."""


class _EncodedResult(Result, frozen=True):
    """A result as others will read it, the data of its items as JSON."""

    items: tuple[EncodedItem, ...] = ()
    tags: tuple[str, ...] = ()


_reader: Final = msgspec.json.Decoder(_EncodedResult)


def checked(spec: LayerSpec, ask: Ask) -> Ask:
    """What a layer gave, as a `Result`: wrappers need not know what else a layer may give."""

    async def ask_checked(request: Request) -> Result:
        return _checked(await ask(request))

    return ask_checked


def bounded(spec: LayerSpec, ask: Ask) -> Ask:
    """Refuse what is no list of items, or is larger than `max_bytes` when encoded.

    What it gives is encoded as others will read it: however odd the layer's own objects are, and
    whatever becomes of them later, the partial that they would have been part of can be sent.
    """
    max_bytes = spec.max_bytes

    async def ask_bounded(request: Request) -> Result:
        result = _checked(await ask(request))
        try:
            encoded = encode(result)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise LayerError(f"the result cannot be encoded: {error}") from None
        if is_deeper(encoded, MAX_RESULT_DEPTH):
            raise LayerError(f"the result is nested deeper than {MAX_RESULT_DEPTH}")
        if len(encoded) > max_bytes:
            raise LayerError(
                f"the result has {len(encoded):,} bytes, over max_bytes = {max_bytes:,}"
            )
        return _read(encoded)

    return ask_bounded


def _read(encoded: bytes) -> Result:
    """A result as it was encoded.

    Raises:
        LayerError: others could not read it: a subclass may be written in any way, and what a
            layer says is JSON may be none.
    """
    try:
        if is_doubtful(encoded):  # nobody looks into the data before whoever asked
            msgspec.json.decode(encoded)
        return _reader.decode(encoded)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LayerError(f"the result cannot be read by others: {error}") from None


def _checked(given: Any) -> Result:
    """What a layer gave, as a `Result` whose items are fit to be sent.

    Raises:
        LayerError: it is something else; the message says what.
    """
    result = given if isinstance(given, Result) else Result(items=given)
    if type(result.items) is not list and not _is_list(result.items):
        raise LayerError(
            f"the layer, or a wrapper round it, gave {type(given).__name__}; it has to be a Result "
            f"or a list of Item"
        )
    if result.ttl_ms is not None and not _is_count(result.ttl_ms):
        raise LayerError(f"gave ttl_ms = {result.ttl_ms!r}; write whole milliseconds from 0 on")
    if result.complete not in (None, True, False):
        raise LayerError(f"gave complete = {result.complete!r}; write True, False or None")
    if result.tags != ():
        _check_tags(result.tags)
    for item in result.items:
        if not (
            type(item) is Item
            and type(item.id) is str
            and 0 < len(item.id) <= MAX_ID_CHARS
            and type(item.score) is float
            and -MAX_SCORE <= item.score <= MAX_SCORE
        ):
            _check_item(item)
    return result


def _check_tags(tags: Any) -> None:
    if not _is_list(tags):
        raise LayerError(f"gave tags = {tags!r}; write a list of strings")
    if len(tags) > MAX_TAGS:
        raise LayerError(f"gave {len(tags):,} tags; {MAX_TAGS:,} is the most")
    if not all(isinstance(tag, str) and len(tag) <= MAX_TAG_CHARS for tag in tags):
        raise LayerError(f"gave a tag that is no string of at most {MAX_TAG_CHARS:,} characters")


def _check_item(item: Any) -> None:
    """A closer look at an item that is not as most are."""
    if not isinstance(item, Item):
        raise LayerError(f"gave a list of {type(item).__name__}; its items must be Item")
    if not item.id or not isinstance(item.id, str):
        raise LayerError("gave an item without an id")
    if len(item.id) > MAX_ID_CHARS:
        raise LayerError(f"gave an id of {len(item.id):,} characters, over {MAX_ID_CHARS:,}")
    if not isinstance(item.score, int | float) or not abs(item.score) <= MAX_SCORE:
        raise LayerError(f"item {item.id!r} has the score {item.score!r}; write a finite one")


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53
