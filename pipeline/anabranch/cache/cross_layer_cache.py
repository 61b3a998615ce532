"""Combinations of layer results: a record per question, in it a slot per layer.

Any subset or superset of what was stored is served, each layer up to the limit it was asked
for, or beyond if it had no more. What is missing is named, and only that is to be fetched.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

from anabranch.cache.eviction import Lru, Policy, S3Fifo
from anabranch.cache.invalidation import Invalidations
from anabranch.cache.keys import Question, question_digest
from anabranch.cache.records import Record, View, sift
from anabranch.cache.sizes import VIEW_BYTES
from anabranch.cache.slot_store import SlotStore
from anabranch.cache.slots import Probe, Slot, empty_ttl_ms
from anabranch.cache.statistics import Statistics
from anabranch.cache.warming import Ageing
from anabranch.config.settings import LAYER_TTL_MS

__all__ = ["CrossLayerCache", "Probe", "Slot"]

_AHEAD_MS: Final = 10_000.0
"""By how much what is stored may be stamped ahead of time."""


class CrossLayerCache:
    """Results by question and layer, bounded in entries (questions) and bytes.

    Times are milliseconds on the broker's clock, passed in; they may go back a little.
    """

    def __init__(
        self,
        max_entries: int = 5000,
        default_ttl_seconds: float = 300,
        *,
        max_bytes: int = 64_000_000,
        ttl_ms: Mapping[str, int] | None = None,
        policy: Literal["s3fifo", "lru"] = "s3fifo",
    ) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._default_ttl_ms = int(default_ttl_seconds * 1000)
        self._ttl_ms = dict(LAYER_TTL_MS if ttl_ms is None else ttl_ms)
        order: Policy[Record] = S3Fifo(max_entries) if policy == "s3fifo" else Lru()
        self._touch = order.touch
        self._statistics = Statistics()
        self._invalidations = Invalidations()
        self._slot_store = SlotStore(
            order,
            max_entries,
            max_bytes,
            on_drop=self._statistics.drop,
            on_fold=self._statistics.fold,
        )
        self._records = self._slot_store.records

    # -- looking up

    def prepared(
        self,
        key: Question,
        layers: tuple[str, ...],
        *,
        limit: int,
        max_age_ms: int | None,
        now_ms: float,
        revision: int = 0,
    ) -> Any:
        """What was remembered for just this, if all that it was made from may still be served.

        The short path of a full hit: in one look, without the slots. It counts as a probe that
        found everything. None if there is nothing, or of another `revision`: then nothing is
        counted, and `probe` is to be asked, and `remember` told what was made of what it found.
        """
        record = self._records.get(key)
        if record is None or record.view is None:
            return None
        view = self._checked_view(record, now_ms)
        if view is None or view.memo is None or view.revision != revision:
            return None
        if not view.serves(layers, limit, max_age_ms, now_ms):
            return None
        record.hits += 1
        if self._touch is not None:
            self._touch(record)
        return view.memo

    def probe(
        self,
        key: Question,
        layers: Sequence[str],
        *,
        limit: int,
        max_age_ms: int | None,
        now_ms: float,
    ) -> Probe:
        """What is fresh of `layers`, and what is missing.

        A `max_age_ms` of 0 goes past the cache.
        """
        layers = tuple(layers)
        record = self._records.get(key)
        if record is not None:
            view = self._checked_view(record, now_ms)
            if view is not None and view.serves(layers, limit, max_age_ms, now_ms):
                record.hits += 1
                if self._touch is not None:
                    self._touch(record)
                return Probe({layer: record.held(layer) for layer in layers})
            self._verify(record, now_ms)
        return self._look(record, key, layers, limit, max_age_ms, now_ms)

    def remember(
        self,
        key: Question,
        layers: Sequence[str],
        limit: int,
        slots: Mapping[str, Slot],
        memo: Any,
        memo_bytes: int,
        revision: int = 0,
    ) -> bool:
        """Keep what was made of `slots`, if they are still what is held; True if it is.

        `prepared` gives it out for just these layers and this limit, until any slot of the
        question changes, expires or is killed by an order. `memo` is the caller's, whatever it is
        but None; of `memo_bytes` in memory, which count. It must hold what changes with time as
        such: when each slot was stored, not its age.
        `revision` is what else it was made from, such as weights: under another it is not given.
        """
        record = self._records.get(key)
        if record is None:
            return False
        for name in layers:
            held = record.get(name)
            if held is None or not held.serves(limit) or not held.is_same(slots[name]):
                return False
        if record.size_bytes + VIEW_BYTES + memo_bytes > self._max_bytes:
            return False
        view = View.over(record, tuple(layers), limit, {name: slots[name] for name in layers})
        view.memo, view.memo_bytes, view.revision = memo, memo_bytes, revision
        self._slot_store.set_view(record, view)
        return record.view is view

    def ttl_for(self, layer: str, own_ms: int | None = None) -> int:
        """Milliseconds that a layer's result is fresh: the result's own, else the layer's."""
        return self._ttl_ms.get(layer, self._default_ttl_ms) if own_ms is None else own_ms

    # -- filling and forgetting

    def store(self, key: Question | str, layer: str, slot: Slot, now_ms: float) -> bool:
        """Keep a layer's result; True if it is held now.

        `key` may be a digest, for what a takeover read back without its params. Refused is what
        an order has killed, what has expired, what is larger than the cache, and what is no
        later than the slot that is there.
        """
        return self.store_all(key, ((layer, slot),), now_ms)

    def store_all(
        self, key: Question | str, slots: Iterable[tuple[str, Slot]], now_ms: float
    ) -> bool:
        """Keep results of layers that came together: they stay or go as one."""
        record = self._records.get(key) or Record.of(key, self._invalidations.epoch)
        admitted = True
        for layer, slot in slots:
            if not slot.items:
                slot.ttl_ms = min(slot.ttl_ms, empty_ttl_ms(key, slot.stored_ms))
            if self._is_admissible(record, layer, slot, now_ms):
                self._slot_store.put(record, layer, slot)
            else:
                self._statistics.drop("refused")
                admitted = False
        self._slot_store.make_room()
        return admitted and bool(record.layers)

    def invalidate(
        self,
        *,
        generation: int,
        layer: str | None = None,
        scope: str | None = None,
        key: str | None = None,
        tags: Sequence[str] = (),
    ) -> int:
        """Kill what matches all that is given (any of `tags`); nothing given is everything.

        `generation` is the order's offset in `control`, `key` a digest. Returns the number of
        slots concerned: those found under one layer, scope or tag that no earlier order for it
        killed (what expired or died otherwise counts until it is found); at most, for
        combinations. Slots of a key are counted when they are found (`evictions`).
        """
        for tag in tags or (None,):
            self._invalidations.add(generation, (layer, scope, key, tag))
        if key is not None:
            read_back = self._records.get(key)
            count = len(read_back.layers) if read_back else 0
        else:
            count = self._slot_store.tallies.order(generation, layer, scope, tags)
        self._statistics.obeyed(generation, count)
        return count

    def forget_all(self) -> None:
        """Drop all that is held, and every order: what they were counted by begins anew."""
        for record in list(self._records.values()):
            for layer in record.layers:
                self._slot_store.drop(record, layer, "invalidated")
        self._invalidations.begin_anew()

    def invalidate_layer(self, layer: str) -> int:
        """Drop all that is held of a layer, here and now; returns the number of slots.

        For a cache of its own: in a pipeline the order goes through `control`.
        """
        concerned = [record for record in self._records.values() if layer in record.layers]
        for record in concerned:
            self._slot_store.drop(record, layer, "invalidated")
        return len(concerned)

    def forget_after(self, now_ms: float) -> None:
        """Drop what is stamped ahead of time: the clock was set back, and it would live too long.

        It would also keep out what is fetched until then.
        """
        for record in list(self._records.values()):
            for layer, slot in record.slots.items():
                if slot.stored_ms > now_ms + _AHEAD_MS:
                    self._slot_store.drop(record, layer, "expired")

    def holds(self, key: Question, layers: Sequence[str], now_ms: float) -> bool:
        """Whether all of `layers` are there and fresh; asking this counts as no probe."""
        record = self._records.get(key)
        slots = [record.get(name) if record is not None else None for name in layers]
        return all(slot is not None and slot.expires_ms > now_ms for slot in slots)

    def ageing(self, now_ms: float) -> Iterator[Ageing]:
        """Questions that were asked again, with layers that have under a quarter of their TTL."""
        for record in self._records.values():
            key = record.key
            if not record.hits or isinstance(key, str):
                continue
            if slots := record.ageing(now_ms):
                limit = max(slot.limit for slot in slots.values())
                cost_ms = sum(slot.cost_ms for slot in slots.values())
                yield Ageing(key, tuple(slots), limit, record.hits, cost_ms)

    # -- statistics, by the names the original gave them

    @property
    def hit_rate(self) -> float:
        """Share of probes for which nothing had to be fetched."""
        return self._counted().hit_rate

    @property
    def total_queries_saved(self) -> int:
        """Probes for which nothing had to be fetched."""
        return self._counted().full_hits

    @property
    def avg_layers_per_hit(self) -> float:
        """Layers served at such a probe."""
        return self._counted().avg_layers_per_hit

    @property
    def cache_size_mb(self) -> float:
        """What it takes of memory, in millions of bytes."""
        return self._slot_store.size_bytes / 1e6

    @property
    def latest_orders(self) -> dict[int, int]:
        """Slots concerned by each of the latest orders, by its offset in `control`."""
        return dict(self._statistics.latest_orders)

    @property
    def top_hit_entries(self) -> list[tuple[str, int]]:
        """The ten records with most hits: digest and hits. No params leave the process."""
        top = heapq.nlargest(10, self._records.values(), key=lambda record: record.hits)
        return [(record.digest, record.hits) for record in top if record.hits]

    def stats(self) -> dict[str, Any]:
        """Everything that is counted, as JSON can say it."""
        return self._counted().read() | {
            "cache_size_mb": self.cache_size_mb,
            "top_hit_entries": self.top_hit_entries,
            "entries": len(self._records),
            "slots": self._slot_store.slots,
            "size_bytes": self._slot_store.size_bytes,
        }

    def __len__(self) -> int:
        return len(self._records)

    @property
    def size_bytes(self) -> int:
        """What it takes of memory: questions, results, tags, memoised answers and their tables."""
        return self._slot_store.size_bytes

    # -- within

    def _look(
        self,
        record: Record | None,
        key: Question,
        layers: tuple[str, ...],
        limit: int,
        max_age_ms: int | None,
        now_ms: float,
    ) -> Probe:
        """A probe that the record's view does not answer."""
        probe = sift(record, layers, limit, max_age_ms, now_ms)
        if probe.missing and self._slot_store.read_back and max_age_ms != 0:
            record = self._adopt(key, now_ms)
            probe = sift(record, layers, limit, max_age_ms, now_ms)
        if record is not None and probe.hits:
            self._hit(record, layers, limit, probe)
        else:
            self._statistics.partly(len(layers), probe)
        return probe

    def _hit(self, record: Record, layers: tuple[str, ...], limit: int, probe: Probe) -> None:
        if self._touch is not None:
            self._touch(record)
        if probe.missing:
            self._statistics.partly(len(layers), probe)
            if record.view is not None:
                record.view.since += 1  # it does not serve this one
            record.hits += 1
            return
        view = View.over(record, layers, limit, probe.hits)
        self._slot_store.set_view(record, view)
        record.hits += 1
        if record.view is not view:  # there was no room for it
            self._statistics.fold(record, view)

    def _checked_view(self, record: Record, now_ms: float) -> View | None:
        """A record's view, if no order has killed any of its slots."""
        if record.epoch != self._invalidations.epoch:
            self._verify(record, now_ms)
        return record.view

    def _verify(self, record: Record, now_ms: float) -> None:
        """Drop what has expired, and what an order that came since the last time has killed."""
        ordered = record.epoch != self._invalidations.epoch
        record.epoch = self._invalidations.epoch
        if not ordered and now_ms < record.expires_ms:
            return
        for layer, slot in record.slots.items():
            if now_ms >= slot.expires_ms:
                self._slot_store.drop(record, layer, "expired")
            elif ordered and self._is_killed(record, layer, slot):
                self._slot_store.drop(record, layer, "invalidated")

    def _is_killed(self, record: Record, layer: str, slot: Slot) -> bool:
        if slot.generation > self._invalidations.newest:
            return False
        latest = self._invalidations.latest(layer, record.scope, slot.tags, lambda: record.digest)
        return latest >= slot.generation

    def _is_admissible(self, record: Record, layer: str, slot: Slot, now_ms: float) -> bool:
        size_bytes = record.size_bytes + slot.size_bytes
        if layer in record.layers:
            held = record.held(layer)
            if held.stored_ms >= slot.stored_ms:
                return False
            size_bytes -= held.size_bytes
        if now_ms >= slot.expires_ms or slot.stored_ms > now_ms + _AHEAD_MS:
            return False
        if self._is_killed(record, layer, slot):
            return False
        if record.view is not None:
            size_bytes -= record.view.size_bytes
        return size_bytes <= self._max_bytes

    def _adopt(self, key: Question, now_ms: float) -> Record | None:
        """Put what was read back under its digest where it belongs, now that its key is known."""
        read_back = self._records.get(question_digest(key))
        if read_back is not None:
            slots = read_back.slots
            for layer in slots:
                self._slot_store.drop(read_back, layer, None)
            self.store_all(key, slots.items(), now_ms)
        return self._records.get(key)

    def _counted(self) -> Statistics:
        """The statistics, with the hits that views have served since they were last asked."""
        for record in self._records.values():
            if record.view is not None:
                self._statistics.fold(record, record.view)
        return self._statistics
