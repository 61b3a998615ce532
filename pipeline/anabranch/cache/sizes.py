"""What things that the cache holds take of memory, in bytes.

Estimates with constants for CPython on 64 bits. To walk over every value of a result would cost
ten times what decoding it does, so a few of its items are walked over, and the others are taken
to be like them, by their length as JSON; of large ones the marks in their JSON are counted instead.
Data that was not decoded is its JSON.
`tests/unit/cache/test_sizes.py` holds all this against what is really allocated.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from sys import getsizeof
from typing import Any, Final

from msgspec import Raw

from anabranch.contract.codec import encode
from anabranch.contract.events import Item

__all__ = [
    "RECORD_BYTES",
    "SLOT_BYTES",
    "TALLY_BYTES",
    "VIEW_BYTES",
    "items_bytes",
    "key_bytes",
    "tags_bytes",
]

RECORD_BYTES: Final = 280
"""A record with its places in tables and queues."""
SLOT_BYTES: Final = 80
"""A slot with its numbers and places in its record."""
VIEW_BYTES: Final = 190
"""A view with its numbers."""
TALLY_BYTES: Final = 100
"""A tally with its place in a table; its name is that of a slot."""
_ITEM_BYTES: Final = 64
"""An item with its score, beside its id and data."""
_RAW_BYTES: Final = 160
"""An item with its score and undecoded data that is its own, beside its id and the data's JSON."""
_LIST_BYTES: Final = 56
_WALKED_BYTES: Final = 8_000
_LONG_TEXT_BYTES: Final = 64
"""Of JSON for each quote: where there is more of it, texts are looked at one by one."""
_TEXT_BYTES: Final = 49
"""A text beside its characters."""
_TEXT: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?')
_DIGITS: Final = b"0123456789.-+eE"


def items_bytes(items: Sequence[Item]) -> int:
    """Of a list of items."""
    if not items:
        return _LIST_BYTES
    if items[0].data.__class__ is Raw:
        raw = [_RAW_BYTES + len(it.data) + getsizeof(it.id) for it in items if type(it.data) is Raw]
        if len(raw) == len(items):
            return _LIST_BYTES + sum(raw)
    encoded = encode(items)
    if len(items) <= 3:
        return _LIST_BYTES + _taken(items, encoded)
    sample = items[0], items[len(items) // 2], items[-1]
    part = encode(sample)
    taken = _taken(sample, part) * len(encoded) // len(part)
    if taken < _least(encoded):
        taken = max(taken, _least(_without_texts(encoded)))
    return _LIST_BYTES + taken


def _least(encoded: bytes) -> int:
    """Whatever the items are really like: a quarter of what so many containers and values take."""
    return 14 * encoded.count(b"[") + 32 * encoded.count(b"{") + 6 * encoded.count(b",")


def tags_bytes(tags: Sequence[str]) -> int:
    """Of a tuple of tags."""
    return sum(map(getsizeof, tags)) + 8 * len(tags)


def key_bytes(key: Any) -> int:
    """Of a question, or a value in it."""
    if key.__class__ is not tuple:
        return getsizeof(key)
    parts = [getsizeof(part) if part.__class__ is not tuple else key_bytes(part) for part in key]
    return getsizeof(key) + sum(parts)


def _taken(items: Sequence[Item], encoded: bytes) -> int:
    return _walked(items) if len(encoded) <= _WALKED_BYTES else _counted(encoded, len(items))


def _walked(items: Sequence[Item]) -> int:
    """Names of fields count once: decoding shares them."""
    seen: set[str] = set()
    ids = sum(getsizeof(item.id) for item in items)
    return ids + sum((8 + _ITEM_BYTES) + _data_bytes(item.data, seen) for item in items)


def _data_bytes(value: Any, seen: set[str]) -> int:
    """No value of JSON is deeper than what decodes it allows."""
    kind = value.__class__
    if kind is dict:
        total = getsizeof(value)
        for name, field in value.items():
            if name not in seen:
                seen.add(name)
                total += getsizeof(name)
            total += _data_bytes(field, seen)
        return total
    if kind is Raw:
        return len(value)
    if kind is list or kind is tuple:
        return getsizeof(value) + sum([_data_bytes(part, seen) for part in value])
    return 0 if value is None or kind is bool else getsizeof(value)


def _counted(encoded: bytes, items: int) -> int:
    """By the marks of compact JSON; in short texts a comma or colon is followed by a space."""
    marks = _without_texts(encoded)
    if marks is encoded:
        return _marked(encoded, items) + (0 if encoded.isascii() else len(encoded) // 3)
    return _marked(marks, items) + sum(map(_text_bytes, _TEXT.findall(encoded)))


def _without_texts(encoded: bytes) -> bytes:
    """The same with empty texts, if there are few and long ones."""
    quotes = encoded.count(b'"') - encoded.count(b'\\"')
    return _TEXT.sub(b'""', encoded) if quotes * _LONG_TEXT_BYTES < len(encoded) else encoded


def _text_bytes(encoded: bytes) -> int:
    """Of what is between the quotes of a text, beyond that it is one; escapes count as written.

    What is not ASCII has its UTF-8 beside it once it was encoded, as all is that is counted here.
    """
    size_bytes = len(encoded) - 2
    if not encoded.isascii():
        size_bytes += getsizeof(encoded.decode()) - _TEXT_BYTES
    return size_bytes


def _marked(encoded: bytes, items: int) -> int:
    count = encoded.count
    names = count(b'":') - count(b'\\":')
    texts = (count(b'"') - count(b'\\"')) // 2 - names
    empty = count(b"{}")
    objects = count(b":{") + count(b",{") + count(b"[{") - items - empty
    arrays = count(b":[") + count(b",[") + count(b"[[")
    parts = count(b",") - count(b", ")
    numbers = max(0, parts + items - texts - empty)
    digits = min(len(encoded) - len(encoded.translate(None, _DIGITS)), 20 * numbers)
    size_bytes = (
        len(encoded) - digits + 30 * items + _TEXT_BYTES * texts + 26 * numbers + 60 * arrays
        + 64 * empty + 130 * objects + 12 * (names - 3 * items) + 7 * parts
    )  # fmt: skip
    return max(size_bytes, len(encoded))
