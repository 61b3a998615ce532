"""How deep JSON is nested, without decoding it."""

from __future__ import annotations

import re
from array import array
from itertools import accumulate
from typing import Final

__all__ = ["is_deeper"]

_STRING: Final = re.compile(rb'"[^"]*"?')
_SQUARE: Final = bytes.maketrans(b"{}", b"[]")
_NO_MARKS: Final = bytes(set(range(256)) - set(b'[]{}"'))
_STEPS: Final = bytes.maketrans(b"[]", b"\x01\xff")
"""As signed bytes: one level down, one up."""


def is_deeper(value: bytes, limit: int) -> bool:
    """Whether JSON is nested deeper than `limit`; of what is no JSON, anything.

    Most values have fewer brackets than that. Of the others, only those are counted that are in
    no string.
    """
    marks = value.translate(_SQUARE, _NO_MARKS)
    if marks.count(b"[") <= limit:
        return False
    if b"\\" in value and b'\\"' in value:
        value = value.replace(b"\\\\", b"").replace(b'\\"', b"")
        marks = value.translate(_SQUARE, _NO_MARKS)
    # Strings that have only commas and such between them may count as one.
    brackets = _STRING.sub(b"", marks.replace(b'""', b""))
    return max(accumulate(array("b", brackets.translate(_STEPS))), default=0) > limit
