"""Records within bounds of entries and bytes, and the exact account of them."""

from __future__ import annotations

from collections.abc import Callable

from anabranch.cache.eviction import Policy
from anabranch.cache.invalidation import Tallies
from anabranch.cache.keys import Question
from anabranch.cache.records import Record, View
from anabranch.cache.slots import Slot
from anabranch.cache.statistics import Cause

__all__ = ["SlotStore"]


class SlotStore:
    """Holds records; every change of what is held goes through here, so the sums never drift.

    `on_drop` is told of each slot that goes, `on_fold` of each view before it is dropped.
    """

    def __init__(
        self,
        policy: Policy[Record],
        max_entries: int,
        max_bytes: int,
        *,
        on_drop: Callable[[Cause], None],
        on_fold: Callable[[Record, View], None],
    ) -> None:
        self.records: dict[Question | str, Record] = {}
        self._records_bytes = 0
        self.slots = 0
        self.read_back = 0
        """Records that lie under a digest."""
        self.tallies = Tallies()
        self.max_bytes = max_bytes
        self._max_entries = max_entries
        self._policy = policy
        self._on_drop = on_drop
        self._on_fold = on_fold

    @property
    def size_bytes(self) -> int:
        """What all of it takes of memory."""
        return self._records_bytes + self.tallies.size_bytes

    def put(self, record: Record, layer: str, slot: Slot) -> None:
        """Hold a slot, in place of the one that is there; `make_room` is to follow."""
        if record.view is not None:
            self._drop_view(record)
        is_new = not record.layers
        old = record.held(layer) if layer in record.layers else None
        record.put(layer, slot)
        if is_new:
            self.records[record.key] = record
            self.read_back += record.named_by_digest
            self._policy.add(record)
            self._records_bytes += record.size_bytes
        else:
            self._records_bytes += slot.size_bytes
        if old is not None:
            self._records_bytes -= old.size_bytes
            self._uncount(record, layer, old.tags, old.generation)
            self._on_drop("replaced")
        self.slots += 1
        self.tallies.add(layer, record.scope, slot.tags)

    def drop(self, record: Record, layer: str, cause: Cause | None) -> None:
        """Let a slot go, and with its last one the record. No cause: it goes elsewhere."""
        self._drop_view(record)
        self._records_bytes -= record.size_bytes
        slot = record.take(layer)
        self._uncount(record, layer, slot.tags, slot.generation)
        if cause is not None:
            self._on_drop(cause)
        if record.layers:
            self._records_bytes += record.size_bytes
        else:
            self._policy.remove(record)
            self._forget(record)

    def set_view(self, record: Record, view: View) -> None:
        """Replace a record's view; others may have to go, or itself."""
        self._drop_view(record)
        record.set_view(view)
        self._records_bytes += view.size_bytes
        self.make_room()

    def make_room(self) -> None:
        """Let go whatever is too much."""
        while len(self.records) > self._max_entries or self.size_bytes > self.max_bytes:
            record = self._policy.evict()
            self._drop_view(record)
            self._records_bytes -= record.size_bytes
            for layer, tags, generation in record.marks():
                self._uncount(record, layer, tags, generation)
                self._on_drop("capacity")
            record.clear()
            self._forget(record)

    def _drop_view(self, record: Record) -> None:
        view = record.view
        if view is not None:
            self._on_fold(record, view)
            record.set_view(None)
            self._records_bytes -= view.size_bytes

    def _uncount(self, record: Record, layer: str, tags: tuple[str, ...], generation: int) -> None:
        self.slots -= 1
        self.tallies.remove(layer, record.scope, tags, generation)

    def _forget(self, record: Record) -> None:
        del self.records[record.key]
        self.read_back -= record.named_by_digest
