"""How far `control` was read: what lookups are stamped with."""

from __future__ import annotations

from anabranch.cache.cross_layer_cache import CrossLayerCache
from anabranch.contract.codec import decode
from anabranch.contract.events import ControlRecord
from anabranch.kafka.transport import Record

__all__ = ["Invalidations"]


class Invalidations:
    """Obeys the orders of `control`, on the cache."""

    def __init__(self, cache: CrossLayerCache) -> None:
        self._cache = cache
        self.position = 0
        """The next offset of `control`: what a fetch began before it misses no later order."""

    def obey(self, record: Record) -> None:
        """A record of `control`.

        Raises:
            DecodeError: it is no order.
        """
        if not record.value:
            return  # a tombstone: the order has expired
        order = decode(record.value, ControlRecord)
        self._cache.invalidate(
            generation=record.offset,
            layer=order.layer,
            scope=order.scope,
            key=order.key,
            tags=tuple(order.tags),
        )

    def follow(self, position: int) -> None:
        """`control` was read up to there.

        Lower than before, it lost its tail or was made anew: which orders would have concerned
        what is held cannot be known any more.
        """
        if position < self.position:
            self._cache.forget_all()
        self.position = position

    def shift(self, moved_ms: float, now_ms: float) -> None:
        """The clock was set: what is stamped later than it is now is not kept."""
        if moved_ms < 0:
            self._cache.forget_after(now_ms)
