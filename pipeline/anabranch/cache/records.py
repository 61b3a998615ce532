"""A record per question: its slots packed, and the latest full hit.

A slot is an object of its own only outside: here its numbers are packed beside those of the
others, as Python's own would take more than the rest of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from struct import Struct as Packing
from typing import Any, Final

from msgspec import Struct

from anabranch.cache.eviction import Entry
from anabranch.cache.keys import Question, question_digest
from anabranch.cache.sizes import RECORD_BYTES, VIEW_BYTES, key_bytes
from anabranch.cache.slots import Probe, Slot, is_ageing

__all__ = ["Record", "View", "sift"]

_SUMS: Final = Packing("=dq")
"""Of a record: cost_ms of its slots, size_bytes."""
_NUMBERS: Final = Packing("=ddqqIq?")
"""Of a slot: stored_ms, cost_ms, ttl_ms, generation, limit, size_bytes, complete."""

_combinations: dict[tuple[str, ...], tuple[str, ...]] = {}
"""Combinations of layers that records hold, each once."""
_MOST_COMBINATIONS: Final = 4_096
"""Beyond it, each record has a tuple of its own."""


class View(Struct, gc=False):
    """A full hit as it was last found: it is one again until a slot of the record changes.

    Attributes:
        since: the record's hits up to which the statistics know of them.
        memo: what the caller made of the slots.
        memo_bytes: what that takes of memory.
        revision: what else it was made from, as the caller counts that.
    """

    layers: tuple[str, ...]
    limit: int
    oldest_ms: float
    expires_ms: float
    cost_ms: float
    since: int
    memo: Any = None
    memo_bytes: int = 0
    revision: int = 0

    @classmethod
    def over(
        cls, record: Record, layers: tuple[str, ...], limit: int, hits: Mapping[str, Slot]
    ) -> View:
        """A view of slots of `record` that are valid now."""
        slots = hits.values()
        return cls(
            layers=_combination(layers),
            limit=limit,
            oldest_ms=min([slot.stored_ms for slot in slots], default=math.inf),
            expires_ms=min([slot.expires_ms for slot in slots], default=math.inf),
            cost_ms=sum([slot.cost_ms for slot in slots]),
            since=record.hits,
        )

    def serves(
        self, layers: tuple[str, ...], limit: int, max_age_ms: int | None, now_ms: float
    ) -> bool:
        """Whether this is the full hit that is asked for, and all of it fresh."""
        return (
            self.layers == layers
            and self.limit == limit
            and now_ms < self.expires_ms
            and (max_age_ms is None or now_ms - self.oldest_ms <= max_age_ms > 0)
        )

    @property
    def size_bytes(self) -> int:
        """What it takes of memory, its memo included."""
        return VIEW_BYTES + self.memo_bytes


class Record(Entry, gc=False, eq=False):
    """A question and its slots.

    Attributes:
        layers: whose slots it has.
        results: their items and tags in turn.
        numbers: the sums, then each slot's.
        view: the latest full hit.
        epoch: how many orders had been read when the slots were found valid.
    """

    layers: tuple[str, ...] = ()
    results: tuple[Any, ...] = ()
    numbers: bytes = b""
    view: View | None = None
    epoch: int = 0

    @classmethod
    def of(cls, key: Question | str, epoch: int) -> Record:
        """One that has no slots yet."""
        sums = _SUMS.pack(0.0, RECORD_BYTES + key_bytes(key))
        return cls(key, numbers=sums, epoch=epoch)

    def get(self, layer: str) -> Slot | None:
        """Its slot of a layer, if it has one."""
        return self.held(layer) if layer in self.layers else None

    def held(self, layer: str) -> Slot:
        """Its slot of a layer.

        Raises:
            ValueError: it has none.
        """
        return self._slot(self.layers.index(layer))

    def put(self, layer: str, slot: Slot) -> None:
        """Hold a slot, in place of the one that is there; a view is to be dropped before."""
        packed = _NUMBERS.pack(
            slot.stored_ms, slot.cost_ms, slot.ttl_ms, slot.generation, slot.limit,
            slot.size_bytes, slot.complete,
        )  # fmt: skip
        result = (slot.items, slot.tags)
        cost_ms, size_bytes = _SUMS.unpack_from(self.numbers)
        if layer not in self.layers:
            self.layers = _combination((*self.layers, layer))
            self.results += result
            sums = _SUMS.pack(cost_ms + slot.cost_ms, size_bytes + slot.size_bytes)
            self.numbers = sums + self.numbers[_SUMS.size :] + packed
            return
        n = self.layers.index(layer)
        self.results = (*self.results[: 2 * n], *result, *self.results[2 * n + 2 :])
        self._splice(n, packed, size_bytes + slot.size_bytes)

    def take(self, layer: str) -> Slot:
        """Hold a slot no more, which is returned; a view is to be dropped before.

        Raises:
            ValueError: there is none of this layer.
        """
        n = self.layers.index(layer)
        slot = self._slot(n)
        self.layers = _combination((*self.layers[:n], *self.layers[n + 1 :]))
        self.results = (*self.results[: 2 * n], *self.results[2 * n + 2 :])
        self._splice(n, b"", self.size_bytes)
        return slot

    def clear(self) -> None:
        """Hold no slot more."""
        self.layers, self.results, self.numbers = (), (), b""

    def set_view(self, view: View | None) -> None:
        """Replace its view."""
        cost_ms, size_bytes = _SUMS.unpack_from(self.numbers)
        size_bytes -= self.view.size_bytes if self.view is not None else 0
        size_bytes += view.size_bytes if view is not None else 0
        self.view = view
        self.numbers = _SUMS.pack(cost_ms, size_bytes) + self.numbers[_SUMS.size :]

    @property
    def slots(self) -> dict[str, Slot]:
        """Slot by layer, all of them."""
        return {layer: self._slot(n) for n, layer in enumerate(self.layers)}

    @property
    def expires_ms(self) -> float:
        """When the first of its slots does."""
        numbers = _NUMBERS.iter_unpack(self.numbers[_SUMS.size :])
        return min([slot[0] + slot[2] for slot in numbers], default=math.inf)

    def ageing(self, now_ms: float) -> dict[str, Slot]:
        """Those of its slots that have under a quarter of their TTL left."""
        numbers = _NUMBERS.iter_unpack(self.numbers[_SUMS.size :])
        return {
            self.layers[n]: self._slot(n)
            for n, slot in enumerate(numbers)
            if is_ageing(slot[0], slot[2], now_ms)
        }

    def marks(self) -> Iterator[tuple[str, tuple[str, ...], int]]:
        """Layer, tags and generation of its slots."""
        numbers = _NUMBERS.iter_unpack(self.numbers[_SUMS.size :])
        for layer, tags, slot in zip(self.layers, self.results[1::2], numbers, strict=True):
            yield layer, tags, slot[3]

    @property
    def size_bytes(self) -> int:
        """Everything that goes with it: question, slots, and what was remembered of them."""
        size_bytes: int = _SUMS.unpack_from(self.numbers)[1]
        return size_bytes

    @property
    def worth(self) -> float:
        """Milliseconds that a hit saves, by byte."""
        cost_ms, size_bytes = _SUMS.unpack_from(self.numbers)
        return cost_ms / size_bytes  # type: ignore[no-any-return]

    @property
    def named_by_digest(self) -> bool:
        """Whether only the digest of its key is known: it was read back, and not asked since."""
        return isinstance(self.key, str)

    @property
    def scope(self) -> str | None:
        """The question's scope, if it is known."""
        scope: str | None = None if isinstance(self.key, str) else self.key[1]
        return scope

    @property
    def digest(self) -> str:
        """Of its key, as hex."""
        return self.key if isinstance(self.key, str) else question_digest(self.key)

    def _slot(self, n: int) -> Slot:
        stored_ms, cost_ms, ttl_ms, generation, limit, size_bytes, complete = _NUMBERS.unpack_from(
            self.numbers, _SUMS.size + n * _NUMBERS.size
        )
        items, tags = self.results[2 * n : 2 * n + 2]
        return Slot(
            items, complete, limit, stored_ms, ttl_ms, generation, tags, cost_ms, size_bytes
        )

    def _splice(self, n: int, packed: bytes, size_bytes: int) -> None:
        """Put other numbers in the place of a slot's; `size_bytes` still has those."""
        at = _SUMS.size + n * _NUMBERS.size
        size_bytes -= _NUMBERS.unpack_from(self.numbers, at)[5]
        slots = self.numbers[_SUMS.size : at] + packed + self.numbers[at + _NUMBERS.size :]
        cost_ms = sum([numbers[1] for numbers in _NUMBERS.iter_unpack(slots)])
        self.numbers = _SUMS.pack(cost_ms, size_bytes) + slots


def sift(
    record: Record | None,
    layers: tuple[str, ...],
    limit: int,
    max_age_ms: int | None,
    now_ms: float,
) -> Probe:
    """Which of `layers` are served by slots of a record that are valid and have not expired."""
    if record is None or max_age_ms == 0:
        return Probe({}, layers) if layers else Probe({})
    oldest_ms = -math.inf if max_age_ms is None else now_ms - max_age_ms
    hits = {}
    for layer in layers:
        slot = record.get(layer)
        if slot is not None and slot.serves(limit) and slot.stored_ms >= oldest_ms:
            hits[layer] = slot
    if len(hits) == len(layers):
        return Probe(hits)
    ageing = tuple([layer for layer, slot in hits.items() if slot.is_ageing(now_ms)])
    return Probe(hits, tuple([layer for layer in layers if layer not in hits]), ageing)


def _combination(layers: tuple[str, ...]) -> tuple[str, ...]:
    """The same, each once for all records that have it."""
    if len(_combinations) < _MOST_COMBINATIONS:
        return _combinations.setdefault(layers, layers)
    return _combinations.get(layers, layers)
