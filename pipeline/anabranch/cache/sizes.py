"""What things that the cache holds take of memory, in bytes.

Estimates with constants for CPython on 64 bits. To walk over every value of a result would cost
ten times what decoding it does, so a few of its items are walked over, and the others are taken
to be like them, by their length as JSON; of large ones the marks in their JSON are counted instead.
`tests/unit/test_cache_sizes.py` holds all this against what is really allocated.
"""

from __future__ import annotations

from collections.abc import Sequence
from sys import getsizeof
from typing import Any, Final

from anabranch.events import Item, encode

__all__ = [
    "RECORD_BYTES",
    "SLOT_BYTES",
    "TALLY_BYTES",
    "VIEW_BYTES",
    "items_bytes",
    "key_bytes",
    "tags_bytes",
]

RECORD_BYTES: Final = 440
"""A record with its places in tables and queues."""
SLOT_BYTES: Final = 290
"""A slot with its numbers."""
VIEW_BYTES: Final = 450
"""A view with its table of hits."""
TALLY_BYTES: Final = 190
"""A tally with its place in a table; its name is that of a slot."""
_ITEM_BYTES: Final = 64
"""An item with its score, beside its id and data."""
_LIST_BYTES: Final = 56
_WALKED_BYTES: Final = 8_000
_DIGITS: Final = b"0123456789.-+eE"


def items_bytes(items: Sequence[Item]) -> int:
    """Of a list of items."""
    if not items:
        return _LIST_BYTES
    encoded = encode(items)
    sample = items if len(items) <= 3 else (items[0], items[len(items) // 2], items[-1])
    part = encoded if sample is items else encode(sample)
    taken = _walked(sample) if len(part) <= _WALKED_BYTES else _counted(part, len(sample))
    count = encoded.count
    # Whatever the others are really like: a quarter of what so many containers and values take.
    least = 14 * count(b"[") + 32 * count(b"{") + 6 * count(b",")
    return _LIST_BYTES + max(taken * len(encoded) // len(part), least)


def tags_bytes(tags: Sequence[str]) -> int:
    """Of a tuple of tags."""
    return sum(map(getsizeof, tags)) + 8 * len(tags)


def key_bytes(key: Any) -> int:
    """Of a question, or a value in it."""
    if key.__class__ is tuple:
        return getsizeof(key) + sum(map(key_bytes, key))
    return getsizeof(key)


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
    if kind is list or kind is tuple:
        return getsizeof(value) + sum([_data_bytes(part, seen) for part in value])
    return 0 if value is None or kind is bool else getsizeof(value)


def _counted(encoded: bytes, items: int) -> int:
    """By the marks of compact JSON; in text a comma or colon is followed by a space."""
    count = encoded.count
    names = count(b'":') - count(b'\\":')
    texts = (count(b'"') - count(b'\\"')) // 2 - names
    empty = count(b"{}")
    objects = count(b":{") + count(b",{") + count(b"[{") - items - empty
    arrays = count(b":[") + count(b",[") + count(b"[[")
    parts = count(b",") - count(b", ")
    numbers = max(0, parts + items - texts - empty)
    digits = min(len(encoded) - len(encoded.translate(None, _DIGITS)), 20 * numbers)
    wide = 0 if encoded.isascii() else len(encoded) // 3
    size_bytes = (
        len(encoded) + wide - digits + 30 * items + 49 * texts + 26 * numbers + 60 * arrays
        + 64 * empty + 130 * objects + 12 * (names - 3 * items) + 7 * parts
    )  # fmt: skip
    return max(size_bytes, len(encoded))
