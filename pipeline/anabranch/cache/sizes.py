"""What things that the cache holds take of memory, in bytes.

Containers and values are asked for their size; what surrounds them is counted by constants for
CPython on 64 bits. `tests/unit/test_cache_sizes.py` holds both against what is really allocated.
"""

from __future__ import annotations

from collections.abc import Sequence
from sys import getsizeof
from typing import Any, Final

from anabranch.events import Item

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


def items_bytes(items: Sequence[Item]) -> int:
    """Of a list of items; the names of fields are counted once, as decoding shares them."""
    seen: set[str] = set()
    total = 56 + (8 + _ITEM_BYTES) * len(items)
    for item in items:
        total += getsizeof(item.id) + _data_bytes(item.data, seen)
    return total


def tags_bytes(tags: Sequence[str]) -> int:
    """Of a tuple of tags."""
    return sum(map(getsizeof, tags)) + 8 * len(tags)


def key_bytes(key: Any) -> int:
    """Of a question, or a value in it."""
    if key.__class__ is tuple:
        return getsizeof(key) + sum(map(key_bytes, key))
    return getsizeof(key)


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
