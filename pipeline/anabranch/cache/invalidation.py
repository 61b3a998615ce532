"""Orders to forget: which slots they kill, and how many that were.

An order is an offset of `control` with a target; a slot carries the offset to which `control`
had been read when its query looked up. It is dead if an order that concerns it has that offset
or a later one: an order that falls into a fetch is not lost, and giving one costs the same
whatever is held.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from msgspec import Struct

from anabranch.cache.sizes import TALLY_BYTES

__all__ = ["Invalidations", "Tallies"]

_MAX_ORDERS: Final = 10_000
_MAX_ORDERS_BYTES: Final = 8_000_000
_ORDER_BYTES: Final = 500
"""An order with its place in a table, beside the text of its target."""
_NEVER: Final = -1
_EVERYTHING: Final = ("", "")

Target = tuple[str | None, str | None, str | None, str | None]
"""Layer, scope, digest of the key, tag; None matches everything."""


class Invalidations:
    """The latest order by target.

    Bounded: beyond `max_orders` targets, or 8 MB, the oldest order is forgotten by applying it to
    everything. That kills too much, never too little.
    """

    def __init__(self, max_orders: int = _MAX_ORDERS) -> None:
        self.epoch = 0
        """Rises with every order: what was valid at an epoch still is while that stands."""
        self._max_orders = max_orders
        self._floor = _NEVER
        self._size_bytes = 0
        self._latest: OrderedDict[Target, int] = OrderedDict()
        self._shapes: set[tuple[bool, bool, bool, bool]] = set()

    def add(self, generation: int, target: Target) -> None:
        """Note an order; `generation` is its offset in `control`."""
        self.epoch += 1
        if target == (None, None, None, None):
            self._floor = max(self._floor, generation)
            return
        if target not in self._latest:
            self._size_bytes += _size(target)
        self._latest[target] = max(generation, self._latest.get(target, _NEVER))
        self._latest.move_to_end(target)
        layer, scope, key, tag = target
        self._shapes.add((layer is not None, scope is not None, key is not None, tag is not None))
        while len(self._latest) > self._max_orders or self._size_bytes > _MAX_ORDERS_BYTES:
            oldest, at = self._latest.popitem(last=False)
            self._size_bytes -= _size(oldest)
            self._floor = max(self._floor, at)

    def begin_anew(self) -> None:
        """Forget all orders, as what they concerned is forgotten."""
        self.epoch += 1
        self._floor = _NEVER
        self._size_bytes = 0
        self._latest.clear()
        self._shapes.clear()

    def latest(
        self, layer: str, scope: str | None, tags: Iterable[str], digest: Callable[[], str]
    ) -> int:
        """Offset of the latest order that concerns a slot; `digest` is called only if needed.

        A scope of None is one that is not known yet: it matches no order that names one.
        """
        latest = self._floor
        for by_layer, by_scope, by_key, by_tag in self._shapes:
            key = digest() if by_key else None
            for tag in tags if by_tag else (None,):
                target = (layer if by_layer else None, scope if by_scope else None, key, tag)
                latest = max(latest, self._latest.get(target, _NEVER))
        return latest


def _size(target: Target) -> int:
    return _ORDER_BYTES + sum(len(name) for name in target if name is not None)


class _Tally(Struct, gc=False):
    live: int = 0
    held: int = 0
    generation: int = _NEVER


class Tallies:
    """How many slots are held by layer, scope and tag, less those that an order has killed.

    A slot that died by an order for another target, or of age, counts until it is found.
    """

    def __init__(self) -> None:
        self._tallies: dict[tuple[str, str], _Tally] = {}
        self.size_bytes = 0
        """What they take of memory."""

    def add(self, layer: str, scope: str | None, tags: Iterable[str]) -> None:
        """Count a slot that was stored."""
        for name in _names(layer, scope, tags):
            tally = self._tallies.get(name)
            if tally is None:
                tally = self._tallies[name] = _Tally()
                self.size_bytes += TALLY_BYTES
            tally.held += 1
            tally.live += 1

    def remove(self, layer: str, scope: str | None, tags: Iterable[str], generation: int) -> None:
        """Uncount a slot that is gone."""
        for name in _names(layer, scope, tags):
            tally = self._tallies[name]
            tally.held -= 1
            tally.live -= generation > tally.generation
            if not tally.held:
                del self._tallies[name]
                self.size_bytes -= TALLY_BYTES

    def order(
        self, generation: int, layer: str | None, scope: str | None, tags: Iterable[str]
    ) -> int:
        """Slots that an order concerns: exact for one target, at most for a combination."""
        wanted = [[("layer", layer)]] if layer is not None else []
        wanted += [[("scope", scope)]] if scope is not None else []
        wanted += [[("tag", tag) for tag in tags]] if tags else []
        wanted = wanted or [[_EVERYTHING]]
        counts = [sum(self._live(name) for name in names) for names in wanted]
        if len(wanted) == 1:
            for name in self._tallies if wanted == [[_EVERYTHING]] else wanted[0]:
                self._kill(name, generation)
        return min(counts)

    def _live(self, name: tuple[str, str]) -> int:
        tally = self._tallies.get(name)
        return tally.live if tally else 0

    def _kill(self, name: tuple[str, str], generation: int) -> None:
        tally = self._tallies.get(name)
        if tally:
            tally.live = 0
            tally.generation = max(tally.generation, generation)


def _names(layer: str, scope: str | None, tags: Iterable[str]) -> Iterator[tuple[str, str]]:
    yield _EVERYTHING
    yield "layer", layer
    if scope is not None:
        yield "scope", scope
    for tag in tags:
        yield "tag", tag
