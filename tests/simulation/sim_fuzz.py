"""Records that nobody should have written: real ones, mutated with a sense for their structure."""

from __future__ import annotations

import random
from typing import Any, Final

import msgspec

__all__ = ["mutate"]

_ODD: Final[tuple[Any, ...]] = (
    None, True, 0, -1, 2**31, 2**63, -(2**63), 1e308, 0.5, "", "x", "\x00", "9" * 1000, [], {},
    [None], {"": {}}, [[[[1]]]],
)  # fmt: skip


def mutate(rng: random.Random, value: bytes) -> bytes:
    """A changed copy; what is JSON mostly stays JSON."""
    try:
        tree = msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        tree = None
    if tree is None or rng.random() < 0.2:
        return _scramble(rng, value)
    for _ in range(rng.randint(1, 3)):
        tree = _change(rng, tree)
    return msgspec.json.encode(tree)


def _change(rng: random.Random, tree: Any) -> Any:
    """Replace, remove or double one node somewhere in the tree."""
    if isinstance(tree, dict) and tree and rng.random() < 0.9:
        key = rng.choice(sorted(tree))
        if rng.random() < 0.15:
            return {k: v for k, v in tree.items() if k != key}
        return tree | {key: _change(rng, tree[key])}
    if isinstance(tree, list) and tree and rng.random() < 0.8:
        at = rng.randrange(len(tree))
        if rng.random() < 0.2:
            return tree + tree
        return [*tree[:at], _change(rng, tree[at]), *tree[at + 1 :]]
    return rng.choice(_ODD)


def _scramble(rng: random.Random, value: bytes) -> bytes:
    """Cut it, flip a byte, or put rubbish into it."""
    at = rng.randint(0, len(value))
    return rng.choice(
        [value[:at], value[at:], value[:at] + rng.randbytes(3) + value[at + 1 :], value * 2]
    )
