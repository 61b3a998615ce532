"""Orders to forget: which slots they kill, and how many that were.

An order is an offset of `control` with a target; a slot carries the offset to which `control`
had been read when its query looked up. It is dead if an order that concerns it has that offset
or a later one: an order that falls into a fetch is not lost, and giving one costs the same
whatever is held.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from msgspec import Struct

from anabranch.cache.sizes import TALLY_BYTES

__all__ = ["Invalidations", "Tallies"]

_MAX_ORDERS: Final = 10_000
_MAX_ORDERS_BYTES: Final = 8_000_000
_ORDER_BYTES: Final = 500
"""An order with its place in a table, beside the text of its target."""
_NEVER: Final = -1

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
        self.newest = _NEVER
        """Offset of the latest order: a slot of a later generation is dead by none."""
        self._max_orders = max_orders
        self._floor = _NEVER
        self._size_bytes = 0
        self._latest: OrderedDict[Target, int] = OrderedDict()
        self._shapes: set[tuple[bool, bool, bool, bool]] = set()

    def add(self, generation: int, target: Target) -> None:
        """Note an order; `generation` is its offset in `control`."""
        self.epoch += 1
        self.newest = max(self.newest, generation)
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
        self.newest = self._floor = _NEVER
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


Named = dict[str, _Tally]


class Tallies:
    """How many slots are held by layer, scope and tag, less those that an order has killed.

    A slot that died by an order for another target, or of age, counts until it is found.
    """

    def __init__(self) -> None:
        self._everything: Named = {}
        self._layers: Named = {}
        self._scopes: Named = {}
        self._tags: Named = {}
        self.size_bytes = 0
        """What they take of memory."""

    def add(self, layer: str, scope: str | None, tags: Iterable[str]) -> None:
        """Count a slot that was stored."""
        self._add(self._everything, "")
        self._add(self._layers, layer)
        if scope is not None:
            self._add(self._scopes, scope)
        for tag in tags:
            self._add(self._tags, tag)

    def remove(self, layer: str, scope: str | None, tags: Iterable[str], generation: int) -> None:
        """Uncount a slot that is gone."""
        self._remove(self._everything, "", generation)
        self._remove(self._layers, layer, generation)
        if scope is not None:
            self._remove(self._scopes, scope, generation)
        for tag in tags:
            self._remove(self._tags, tag, generation)

    def order(
        self, generation: int, layer: str | None, scope: str | None, tags: Sequence[str]
    ) -> int:
        """Slots that an order concerns: exact for one target, at most for a combination."""
        wanted: list[list[_Tally]] = []
        if layer is not None:
            wanted.append(_among(self._layers, [layer]))
        if scope is not None:
            wanted.append(_among(self._scopes, [scope]))
        if tags:
            wanted.append(_among(self._tags, tags))
        if not wanted:
            wanted.append(list(self._everything.values()))
        count = min(sum(tally.live for tally in tallies) for tallies in wanted)
        if layer is None and scope is None and not tags:
            for named in (self._everything, self._layers, self._scopes, self._tags):
                _kill(named.values(), generation)
        elif len(wanted) == 1:
            _kill(wanted[0], generation)
        return count

    def _add(self, named: Named, name: str) -> None:
        tally = named.get(name)
        if tally is None:
            tally = named[name] = _Tally()
            self.size_bytes += TALLY_BYTES
        tally.held += 1
        tally.live += 1

    def _remove(self, named: Named, name: str, generation: int) -> None:
        tally = named[name]
        tally.held -= 1
        if generation > tally.generation:
            tally.live -= 1
        if not tally.held:
            del named[name]
            self.size_bytes -= TALLY_BYTES


def _among(named: Named, names: Iterable[str]) -> list[_Tally]:
    return [named[name] for name in names if name in named]


def _kill(tallies: Iterable[_Tally], generation: int) -> None:
    for tally in tallies:
        tally.live = 0
        tally.generation = max(tally.generation, generation)
