"""Items whose data stays JSON: nobody but the layer that gave it and who asked looks into it.

A partial's items are joined by id and score; their data is copied from record to record as it was
written. What would have been found on decoding it is looked for in the bytes instead.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from msgspec import Meta, Raw

from anabranch.contract import bounds
from anabranch.contract.events import Item, Partial, PartialResult

__all__ = ["EncodedItem", "EncodedPartial", "as_text", "is_doubtful", "is_nothing"]

_NOTHING: Final = Raw(b"null")
_NUMBERS: Final = bytes.maketrans(b"123456789E", b"000000000e")
_NO_NUMBERS: Final = bytes(set(range(256)) - set(b'0123456789eE",'))
_LARGE: Final = b"0e000"
_LONG: Final = b"0" * 200
"""One of the two is in what is left of a number that no float holds; in that of some texts too."""


class EncodedItem(Item, frozen=True, gc=False):
    """An item with its data as JSON, kept apart from the record that it came in."""

    data: Raw = _NOTHING


class _EncodedResult(PartialResult, gc=False):
    items: Annotated[list[EncodedItem], Meta(max_length=bounds.MAX_ITEMS)] = []  # noqa: RUF012


class EncodedPartial(Partial, frozen=True, gc=False):
    """A partial whose items are encoded ones."""

    results: Annotated[list[_EncodedResult], Meta(max_length=bounds.MAX_SLOTS)]


def is_nothing(data: Any) -> bool:
    """Whether an item has no data, encoded or not."""
    return data is None or (data.__class__ is Raw and data == _NOTHING)


def as_text(data: Any) -> str:
    """Something to order items by that have the same score and id."""
    return repr(bytes(data) if data.__class__ is Raw else data)


def is_doubtful(value: bytes) -> bool:
    """Whether JSON of which parts were skipped has to be decoded to know that it can be.

    Skipping checks all but that text is UTF-8 and that numbers are not too large.
    """
    numbers = value.translate(_NUMBERS, _NO_NUMBERS)
    return _LARGE in numbers or _LONG in numbers or not (value.isascii() or _is_utf8(value))


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
