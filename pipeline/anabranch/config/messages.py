"""Turns what msgspec says of a wrong setting into `key: what is wrong; what to write`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
from msgspec import Struct

__all__ = ["explain", "kind_at", "locate", "nearest", "unfold"]

_STEP = re.compile(r"\.|\[[^\[\]]*\]")
_MAX_NAME_CHARS = 100
_UNKNOWN = re.compile(r"^Object contains unknown field `(?P<field>.*?)`")
_MISSING = re.compile(r"^Object missing required field `(?P<field>.*?)`")


def explain(error: msgspec.ValidationError, prefix: str = "", kind: Any = None) -> str:
    """`key: what is wrong; what to write`, as one text. See `locate`."""
    key, what = locate(error, prefix, kind)
    return f"{key}: {what}" if key else what


def locate(error: msgspec.ValidationError, prefix: str = "", kind: Any = None) -> tuple[str, str]:
    """The dotted key that is wrong (after `prefix`), and what is wrong with it.

    `kind` is the Struct that was converted to: with it, choices and near misses are named.
    """
    what, _, path = str(error).partition(" - at `")
    path = path.removeprefix("key in ").removeprefix("$").removeprefix(".").removesuffix("`")
    if unknown := _UNKNOWN.match(what):
        what = _no_such_key(unknown["field"], kind_at(kind, _keys(path)))
        path = f"{path}.{unknown['field']}" if path else unknown["field"]
    elif missing := _MISSING.match(what):
        what = "is missing; write it"
        path = f"{path}.{missing['field']}" if path else missing["field"]
    elif what.startswith("Invalid enum value"):
        what = f"{what[0].lower()}{what[1:]}{_choices(kind_at(kind, _keys(path)))}"
    else:
        what = f"{what[0].lower()}{what[1:]}"
    return ".".join(part for part in (prefix, path) if part), what


def nearest(word: str, known: Iterable[str], *, likeness: float = 0.6) -> str | None:
    """The known name that was probably meant. A long word is near to none: looking is quadratic."""
    if len(word) > _MAX_NAME_CHARS:
        return None
    return next(iter(difflib.get_close_matches(word, known, 1, likeness)), None)


def kind_at(kind: Any, keys: Sequence[str]) -> Any:
    """The type that a Struct's nested field is declared with; None where there is no such one."""
    for key in keys:
        kind = unfold(kind)
        if get_origin(kind) is dict:
            kind = get_args(kind)[1]
            continue
        if not (isinstance(kind, type) and issubclass(kind, Struct)):
            return None
        kind = next((f.type for f in msgspec.structs.fields(kind) if f.name == key), None)
    return kind


def unfold(kind: Any) -> Any:
    """A type without its `Annotated`, and of `X | None` the `X`."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    some = [each for each in get_args(kind) if each is not type(None)]
    return unfold(some[0]) if len(some) < len(get_args(kind)) and len(some) == 1 else kind


def _keys(path: str) -> list[str]:
    return [key for key in _STEP.split(path) if key]


def _no_such_key(field: str, kind: Any) -> str:
    kind = unfold(kind)
    known = (
        [f.name for f in msgspec.structs.fields(kind)]
        if isinstance(kind, type) and issubclass(kind, Struct)
        else []
    )
    near = nearest(field, known)
    if near is not None:
        return f"there is no such key; did you mean {near}?"
    listed = f"; the keys are {', '.join(known)}" if known else "; remove it or correct its name"
    return f"there is no such key{listed}"


def _choices(kind: Any) -> str:
    kind = unfold(kind)
    if get_origin(kind) is not Literal:
        return ""
    return f"; write one of {', '.join(str(choice) for choice in get_args(kind))}"
