"""A question as a hashable tuple, and as the digest it has wherever it leaves the process.

The tuple is flat, `(type, scope, name, value, name, value, ...)` with names sorted: one allocation
and one hash. Values that Python takes for equal and JSON does not (1, 1.0, true) are tagged, so
two keys are equal exactly if their digests are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from anabranch.contract.keys import digest

__all__ = ["Question", "make_key", "question_digest", "question_params"]

Question = tuple[Any, ...]
"""`(type, scope, name, value, ...)`: made by `make_key`, hashable, unequal across scopes."""

_LIST, _OBJECT, _FLOAT, _BOOL = "[", "{", "f", "b"


def make_key(
    type: str,
    scope: str,
    params: Mapping[str, Any],
    key_params: Sequence[str] | None = None,
) -> Question:
    """The key of a question; of its params only those in `key_params`, if that is given.

    Raises:
        TypeError: a value is nothing that JSON can say.
    """
    if key_params is None:
        names = sorted(params) if len(params) > 1 else params
    else:
        names = sorted(name for name in key_params if name in params)
    parts: list[Any] = [type, scope]
    for name in names:
        value = params[name]
        parts.append(name)
        kind = value.__class__
        parts.append(value if kind is str or kind is int else _freeze(value))
    return tuple(parts)


def question_params(key: Question) -> dict[str, Any]:
    """The params that a key was made from: all of them, unless it was made by `key_params`."""
    return dict(zip(key[2::2], map(_thaw, key[3::2]), strict=True))


def question_digest(key: Question) -> str:
    """`keys.digest` of the question that a key was made from (of its key params only)."""
    return digest(key[0], key[1], question_params(key))


def _freeze(value: Any) -> Any:
    if value is None or value.__class__ is str or value.__class__ is int:
        return value
    if isinstance(value, bool):
        return (_BOOL, value)
    if isinstance(value, float):
        return (_FLOAT, value or str(value))  # -0.0 == 0.0, but not in JSON
    if isinstance(value, Mapping):
        parts: list[Any] = [_OBJECT]
        for name in sorted(value):
            parts += name, _freeze(value[name])
        return tuple(parts)
    if isinstance(value, list | tuple):
        return (_LIST, *map(_freeze, value))
    raise TypeError(f"a param of a question must be JSON, not {value.__class__.__name__}")


def _thaw(value: Any) -> Any:
    if value.__class__ is not tuple:
        return value
    tag, *parts = value
    if tag == _OBJECT:
        return dict(zip(parts[::2], map(_thaw, parts[1::2]), strict=True))
    if tag == _LIST:
        return [_thaw(part) for part in parts]
    return float(parts[0]) if tag == _FLOAT else parts[0]
