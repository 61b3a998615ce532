"""Events to bytes and back. What is too large or too deep is not decoded."""

from __future__ import annotations

import re
from typing import Any, Final, TypeVar

import msgspec
from msgspec.structs import force_setattr

from anabranch.contract.encoded import EncodedPartial, is_doubtful
from anabranch.contract.events import Health, Partial
from anabranch.contract.nesting import is_deeper
from anabranch.errors import DecodeError

__all__ = [
    "MAX_DEPTH",
    "MAX_VALUE_BYTES",
    "decode",
    "decode_health",
    "decode_partial",
    "encode",
    "read_id",
]

MAX_VALUE_BYTES: Final = 1_000_000
"""Largest value of a record that is decoded; above it the record is a dead letter."""

MAX_DEPTH: Final = 64
"""Deepest nesting of arrays and objects that is decoded."""

T = TypeVar("T")

_encoder = msgspec.json.Encoder()
_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}
_ID = re.compile(rb'"id"\s*:\s*("(?:[^"\\]|\\.){1,256}")')

encode = _encoder.encode
"""`encode(event) -> bytes`: JSON in UTF-8."""


def decode_partial(value: bytes | None) -> Partial:
    """Decode a partial; the data of its items stays JSON, each a copy of its own.

    Raises:
        DecodeError: as `decode`.
    """
    partial = decode(value, EncodedPartial)
    if value and is_doubtful(value):
        decode(value, Partial)
    for result in partial.results:
        for item in result.items:
            force_setattr(item, "data", item.data.copy())  # a view would keep the whole record
    return partial


def decode_health(value: bytes | None) -> Health:
    """Decode a record of `health`, which holds several kinds of them.

    Raises:
        DecodeError: as `decode`.
    """
    kind: Any = Health
    health: Health = decode(value, kind)
    return health


def decode(value: bytes | None, kind: type[T]) -> T:
    """Decode a record's value into `kind`.

    Size and depth are bounded before anything is decoded.

    Raises:
        DecodeError: the value is empty, too large, too deep, no JSON, or not a `kind`.
    """
    if not value:
        raise DecodeError("the value is empty")
    if len(value) > MAX_VALUE_BYTES:
        raise DecodeError(f"the value has {len(value):,} bytes, over {MAX_VALUE_BYTES:,}")
    if is_deeper(value, MAX_DEPTH):
        raise DecodeError(f"the value is nested deeper than {MAX_DEPTH}")
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    try:
        event: T = decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError(f"not a {getattr(kind, '__name__', kind)}: {error}") from error
    return event


def read_id(value: bytes | None) -> str | None:
    """The id of a query that could not be decoded, if one can still be read from its bytes.

    An object's own `id` wins; of bytes that are no JSON it is the first `"id": "..."`.
    """
    if not value:
        return None
    head = value[:MAX_VALUE_BYTES]
    if len(value) <= MAX_VALUE_BYTES and not is_deeper(head, MAX_DEPTH):
        try:
            raw = msgspec.json.decode(head)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
        else:
            found = raw.get("id") if isinstance(raw, dict) else None
            return found[:256] if isinstance(found, str) and found else None
    match = _ID.search(head)
    if match is None:
        return None
    try:
        return str(msgspec.json.decode(match[1], type=str))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
