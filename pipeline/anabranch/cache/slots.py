"""What the cache holds: a record per question, in it a slot per layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from anabranch.cache.eviction import Entry
from anabranch.cache.keys import Question, question_digest
from anabranch.cache.sizes import (
    RECORD_BYTES,
    SLOT_BYTES,
    VIEW_BYTES,
    items_bytes,
    key_bytes,
    tags_bytes,
)
from anabranch.contract.events import Item

__all__ = ["Probe", "Record", "Slot", "View", "sift"]

_REFRESH_SHARE: Final = 0.25

_combinations: dict[tuple[str, ...], tuple[str, ...]] = {}
"""Combinations of layers that records hold, each once."""
_MOST_COMBINATIONS: Final = 4_096
"""Beyond it, each record has a tuple of its own."""


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

    items: list[Item]
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

    def ageing(self, now_ms: float) -> bool:
        """Whether under a quarter of its TTL is left, but some."""
        return 0 < self.expires_ms - now_ms < _REFRESH_SHARE * self.ttl_ms


class Probe(Struct):
    """What the cache has for a query.

    Attributes:
        hits: slot by layer. Read only: it is shared with later probes.
        missing: layers to be fetched, in the order they were asked for.
        refresh: layers among `hits` with under a quarter of their TTL left; named only beside a
            partial miss, where fetching them costs no extra round.
        memo: the answer that was made from just these slots, for just these layers and this
            limit, if it was remembered.
    """

    hits: dict[str, Slot]
    missing: tuple[str, ...] = ()
    refresh: tuple[str, ...] = ()
    memo: bytes | None = None


class View(Probe, gc=False):
    """A full hit as it was last found: as long as it holds, it is given again as it is."""

    layers: tuple[str, ...] = ()
    limit: int = 0
    epoch: int = 0
    """How many orders had been read when the slots were found valid."""
    oldest_ms: float = 0.0
    expires_ms: float = 0.0
    since: int = 0
    """The record's hits up to which the statistics know of them."""

    @classmethod
    def over(
        cls,
        record: Record,
        layers: tuple[str, ...],
        limit: int,
        memo: bytes | None = None,
        hits: dict[str, Slot] | None = None,
    ) -> View:
        """A view of slots of `record` that are valid now."""
        held = record.slots
        slots = {layer: held[layer] for layer in layers} if hits is None else hits
        return cls(
            slots,
            memo=memo,
            layers=layers,
            limit=limit,
            epoch=record.epoch,
            oldest_ms=min((slot.stored_ms for slot in slots.values()), default=math.inf),
            expires_ms=min((slot.expires_ms for slot in slots.values()), default=math.inf),
            since=record.hits,
        )


class Record(Entry):
    """A question and its slots, packed: a dict of its own would be a third of all it takes."""

    __slots__ = ("_held", "_layers", "counted_bytes", "epoch", "key_bytes", "view")

    def __init__(self, key: Question | str, epoch: int) -> None:
        super().__init__(key)
        self._layers: tuple[str, ...] = ()
        self._held: tuple[Slot, ...] = ()
        self.view: View | None = None
        self.epoch = epoch
        """How many orders had been read when the slots were found valid."""
        self.key_bytes = key_bytes(key)
        self.counted_bytes = 0
        """What stands of it in the cache's account."""

    @property
    def slots(self) -> dict[str, Slot]:
        """Slot by layer, as a dict of the caller's own."""
        return dict(zip(self._layers, self._held, strict=True))

    @slots.setter
    def slots(self, slots: Mapping[str, Slot]) -> None:
        layers = tuple(slots)
        if len(_combinations) < _MOST_COMBINATIONS:
            _combinations[layers] = _combinations.get(layers, layers)
        self._layers = _combinations.get(layers, layers)
        self._held = tuple(slots.values())

    @property
    def size_bytes(self) -> int:
        """Everything that goes with it: question, slots, and the memoised answer."""
        held = RECORD_BYTES + self.key_bytes + sum([slot.size_bytes for slot in self._held])
        return held if self.view is None else held + VIEW_BYTES + len(self.view.memo or b"")

    @property
    def worth(self) -> float:
        """Milliseconds that a hit saves, by byte."""
        return sum(slot.cost_ms for slot in self._held) / max(1, self.size_bytes)

    @property
    def named_by_digest(self) -> bool:
        """Whether only the digest of its key is known: it was read back, and not asked since."""
        return isinstance(self.key, str)

    @property
    def scope(self) -> str | None:
        """The question's scope, if it is known."""
        return None if isinstance(self.key, str) else str(self.key[1])

    @property
    def digest(self) -> str:
        """Of its key, as hex."""
        return self.key if isinstance(self.key, str) else question_digest(self.key)


def sift(
    slots: Mapping[str, Slot],
    layers: tuple[str, ...],
    limit: int,
    max_age_ms: int | None,
    now_ms: float,
) -> Probe:
    """Which of `layers` are served by slots that are valid and have not expired."""
    oldest_ms = -math.inf if max_age_ms is None else now_ms - max_age_ms
    hits = {}
    for layer in layers:
        slot = slots.get(layer)
        if (
            slot is not None
            and slot.serves(limit)
            and slot.stored_ms >= oldest_ms
            and max_age_ms != 0
        ):
            hits[layer] = slot
    if len(hits) == len(layers):
        return Probe(hits)
    ageing = tuple(layer for layer, slot in hits.items() if slot.ageing(now_ms))
    return Probe(hits, tuple(layer for layer in layers if layer not in hits), ageing)
