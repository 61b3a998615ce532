"""Settings as they may be shown: without secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["MASK", "masked"]

MASK: Final = "***"
_NAMES: Final = r"password|passwd|pwd|secret|token|credential|api_?key|jaas|private"
_SECRET: Final = re.compile(_NAMES, re.IGNORECASE)
_IN_URL: Final = re.compile(r"(?<=://)([^/@:\s]*):.*(?=@)", re.DOTALL)
"""From the colon to the last @: a password may hold anything that should have been escaped."""
_USER_IN_URL: Final = re.compile(r"(?<=\bhttps://)[^/@:\s]+(?=@)|(?<=\bhttp://)[^/@:\s]+(?=@)")
"""A token in the place of a user, as git hosts take it."""
_IN_PAIRS: Final = re.compile(
    rf"""(\b\w*(?:{_NAMES})\w*\s*=\s*)("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|\{{[^}}]*\}}|[^\s;&]+)""",
    re.IGNORECASE,
)


def masked(key: str, value: Any, written: Any) -> Any:
    """A value that may be shown.

    Args:
        key: dotted; its name says whether the value is a secret.
        written: the value as it stands in its source. What came through `${NAME}` is shown as
            that reference.
    """
    if isinstance(value, Mapping):
        inner = written if isinstance(written, Mapping) else {}
        return {k: masked(f"{key}.{k}", v, inner.get(k)) for k, v in value.items()}
    if isinstance(written, str) and "${" in written:
        return _text(written)
    if _SECRET.search(key):
        return MASK
    if isinstance(value, list):
        same = isinstance(written, list) and len(written) == len(value)
        return [masked(key, v, w) for v, w in zip(value, written if same else value, strict=True)]
    return _text(value) if isinstance(value, str) else value


def _text(text: str) -> str:
    text = _IN_PAIRS.sub(rf"\1{MASK}", _IN_URL.sub(rf"\1:{MASK}", text))
    return _USER_IN_URL.sub(MASK, text)
