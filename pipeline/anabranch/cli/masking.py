"""Settings as they may be shown: without secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

__all__ = ["MASK", "masked"]

MASK: Final = "***"
_NAMES: Final = r"password|passwd|pwd|secret|token|credential|api_?key|jaas|private"
_SECRET: Final = re.compile(_NAMES, re.IGNORECASE)
_USER: Final = re.compile(r"://[^/@:\s]*:")
_REFERENCE: Final = re.compile(r"(?<!\$)(?:\$\$)*\$\{")
"""A variable's name; behind a doubled dollar it is text."""
_USER_IN_URL: Final = re.compile(r"(?<=\bhttps://)[^/@:\s]+(?=@)|(?<=\bhttp://)[^/@:\s]+(?=@)")
"""A token in the place of a user, as git hosts take it."""
_NAME: Final = re.compile(r"(?<!\w)(\w++)\s{0,9}=\s{0,9}")
_VALUE: Final = re.compile(
    r""""(?:[^"\\]|\\.)*+"|'(?:[^'\\]|\\.)*+'|\{[^{}]*+\}|[^\s;&]++""",
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
    if isinstance(written, str) and _REFERENCE.search(written):
        return _text(written)
    if _SECRET.search(key):
        return MASK
    if isinstance(value, list):
        same = isinstance(written, list) and len(written) == len(value)
        return [masked(key, v, w) for v, w in zip(value, written if same else value, strict=True)]
    return _text(value) if isinstance(value, str) else value


def _text(text: str) -> str:
    return _USER_IN_URL.sub(MASK, "".join(_without_pairs(_without_password(text))))


def _without_password(text: str) -> str:
    """From the colon to the last @: a password may hold anything that should have been escaped."""
    user, last = _USER.search(text), text.rfind("@")
    if user is None or last < user.end():
        return text
    return f"{text[: user.end()]}{MASK}{text[last:]}"


def _without_pairs(text: str) -> Iterator[str]:
    """The pieces of a text, with the values of `password=...` and its like masked."""
    done = 0
    while name := _NAME.search(text, done):
        yield text[done : name.end()]
        done = name.end()
        if _SECRET.search(name[1]) and (value := _VALUE.match(text, done)):
            yield MASK
            done = value.end()
    yield text[done:]
