"""Records within bounds of entries and bytes, and the exact account of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from anabranch.cache.eviction import Policy
from anabranch.cache.invalidation import Tallies
from anabranch.cache.keys import Question
from anabranch.cache.slots import Record, Slot, View
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
        """Hold a slot, in place of the one that is there; others may have to go."""
        self.set_view(record, None)
        slots = record.slots
        old = slots.get(layer)
        if old is not None:
            self._count(record, layer, old, -1)
            self._on_drop("replaced")
        slots[layer] = slot
        record.slots = slots
        self._count(record, layer, slot, 1)
        if record.key not in self.records:
            self.records[record.key] = record
            self.read_back += record.named_by_digest
            self._policy.add(record)
        self._account(record)
        self._make_room()

    def drop(self, record: Record, layer: str, cause: Cause | None) -> None:
        """Let a slot go, and with its last one the record. No cause: it goes elsewhere."""
        self.set_view(record, None)
        slots = record.slots
        self._count(record, layer, slots.pop(layer), -1)
        record.slots = slots
        if cause is not None:
            self._on_drop(cause)
        if not slots:
            self._policy.remove(record)
            self._forget(record)
        self._account(record)

    def set_view(self, record: Record, view: View | None) -> None:
        """Replace a record's view."""
        old = record.view
        if old is not None:
            self._on_fold(record, old)
        record.view = view
        self._account(record)
        if view is not None:
            self._make_room()

    def _count(self, record: Record, layer: str, slot: Slot, sign: Literal[1, -1]) -> None:
        self.slots += sign
        if sign > 0:
            self.tallies.add(layer, record.scope, slot.tags)
        else:
            self.tallies.remove(layer, record.scope, slot.tags, slot.generation)

    def _account(self, record: Record) -> None:
        """Bring what stands of a record in the account up to date."""
        size_bytes = record.size_bytes if record.key in self.records else 0
        self._records_bytes += size_bytes - record.counted_bytes
        record.counted_bytes = size_bytes

    def _make_room(self) -> None:
        while len(self.records) > self._max_entries or self.size_bytes > self.max_bytes:
            record = self._policy.evict()
            self.set_view(record, None)
            for layer, slot in record.slots.items():
                self._count(record, layer, slot, -1)
                self._on_drop("capacity")
            record.slots = {}
            self._forget(record)
            self._account(record)

    def _forget(self, record: Record) -> None:
        del self.records[record.key]
        self.read_back -= record.named_by_digest
