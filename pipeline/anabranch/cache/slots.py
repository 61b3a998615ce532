"""One layer's result to one question, and what a probe gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from anabranch.cache.keys import Question
from anabranch.cache.sizes import SLOT_BYTES, items_bytes, tags_bytes
from anabranch.contract.events import Item

__all__ = ["Probe", "Slot", "empty_ttl_ms", "is_ageing"]

_REFRESH_SHARE: Final = 0.25
_EMPTY_TTL_MS: Final = 5_000
"""Longest time that "nothing found" is believed; up to half of it is taken off by chance."""


class Slot(Struct, gc=False):
    """One layer's result to one question. The cache owns it once it is stored.

    Attributes:
        items: as the layer gave them, best first; at most `limit`.
        complete: nothing more exists than `items`, whatever limit is asked for.
        limit: what the layer was asked for.
        stored_ms: the partial's record timestamp: its age counts from there.
        ttl_ms: how long it may be served from then on.
        generation: offset to which `control` had been read when the query looked up.
        tags: names under which it can be invalidated.
        cost_ms: what fetching it took: what a hit saves.
        size_bytes: what it takes of memory, items and tags included; found if not given.
    """

    items: Sequence[Item]
    complete: bool
    limit: int
    stored_ms: float
    ttl_ms: int
    generation: int
    tags: tuple[str, ...] = ()
    cost_ms: float = 0.0
    size_bytes: int = 0

    def __post_init__(self) -> None:
        if not self.size_bytes:
            self.size_bytes = SLOT_BYTES + tags_bytes(self.tags) + items_bytes(self.items)

    @property
    def expires_ms(self) -> float:
        """From when on it is not served."""
        return self.stored_ms + self.ttl_ms

    def serves(self, limit: int) -> bool:
        """Whether as many items as `limit` asks for would be no others than these."""
        return self.complete or self.limit >= limit

    def is_same(self, other: Slot) -> bool:
        """Whether it is the same result."""
        return self.items is other.items and self.stored_ms == other.stored_ms

    def is_ageing(self, now_ms: float) -> bool:
        """Whether under a quarter of its TTL is left, but some."""
        return is_ageing(self.stored_ms, self.ttl_ms, now_ms)


class Probe(Struct):
    """What the cache has for a query.

    Attributes:
        hits: slot by layer.
        missing: layers to be fetched, in the order they were asked for.
        refresh: layers among `hits` with under a quarter of their TTL left; named only beside a
            partial miss, where fetching them costs no extra round.
    """

    hits: dict[str, Slot]
    missing: tuple[str, ...] = ()
    refresh: tuple[str, ...] = ()


def is_ageing(stored_ms: float, ttl_ms: int, now_ms: float) -> bool:
    """Whether of what was stored then under a quarter of its TTL is left, but some."""
    return 0 < stored_ms + ttl_ms - now_ms < _REFRESH_SHARE * ttl_ms


def empty_ttl_ms(key: Question | str, stored_ms: float) -> int:
    """How long it is believed that nothing is found for a question.

    By chance, but always the same: what came in one burst does not end in one.
    """
    chance = hash((key, stored_ms)) % 1024 / 1024
    return int(_EMPTY_TTL_MS * (1 - chance / 2))
