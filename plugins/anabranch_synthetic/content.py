"""What a synthetic layer says: items that can be computed again anywhere."""

from __future__ import annotations

import hashlib
from typing import Protocol

from anabranch import Request
from anabranch.contract.events import Item
from anabranch.contract.keys import digest

__all__ = ["expected_items"]


class _Content(Protocol):
    @property
    def items(self) -> int: ...
    @property
    def item_bytes(self) -> int: ...


class _Named(Protocol):
    name: str

    @property
    def config(self) -> _Content: ...


def expected_items(layer: _Named, request: Request) -> list[Item]:
    """What `layer` answers to `request`: its first `limit` items, best first.

    Depends on nothing but the layer's name, `items` and `item_bytes`, and on the request's
    type, scope, params, shard and limit. Scores fall from 1 towards 0; shards interleave.
    """
    question = digest(request.type, request.scope, request.params)[:16]
    stem = f"synthetic:{layer.name}/{question}/{request.shard}"
    total = layer.config.items
    return [
        Item(
            id=f"{stem}/{n}",
            score=1.0 - (n + request.shard / request.shards) / total,
            data={"text": _text(f"{stem}/{n}", layer.config.item_bytes)},
        )
        for n in range(min(total, request.limit))
    ]


def _text(seed: str, size: int) -> str:
    """`size` ASCII characters that only `seed` decides."""
    block = hashlib.sha256(seed.encode()).hexdigest()
    return (block * (size // len(block) + 1))[:size]
