"""Combinations of layer results: a record per question, in it a slot per layer.

Any subset or superset of what was stored is served, each layer up to the limit it was asked
for, or beyond if it had no more. What is missing is named, and only that is to be fetched.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal

from anabranch.cache.eviction import Lru, Policy, S3Fifo
from anabranch.cache.invalidation import Invalidations
from anabranch.cache.keys import Question, question_digest
from anabranch.cache.sizes import RECORD_BYTES, VIEW_BYTES
from anabranch.cache.slot_store import SlotStore
from anabranch.cache.slots import Probe, Record, Slot, View, sift
from anabranch.cache.statistics import Statistics
from anabranch.cache.warming import Ageing
from anabranch.config.settings import LAYER_TTL_MS

__all__ = ["CrossLayerCache", "Probe", "Slot"]

_AHEAD_MS: Final = 10_000.0
"""By how much what is stored may be stamped ahead of time."""
_EMPTY_TTL_MS: Final = 5_000
"""Longest time that "nothing found" is believed; up to half of it is taken off by chance."""


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

        `layers` as a tuple is fastest. A `max_age_ms` of 0 goes past the cache.
        """
        record = self._records.get(key)
        if record is not None:
            view = record.view
            if (
                view is not None
                and view.layers == layers
                and view.limit == limit
                and now_ms < view.expires_ms
                and view.epoch == self._invalidations.epoch
                and (max_age_ms is None or now_ms - view.oldest_ms <= max_age_ms > 0)
            ):
                record.hits += 1
                if self._touch is not None:
                    self._touch(record)
                return view
        return self._look(record, key, tuple(layers), limit, max_age_ms, now_ms)

    def remember(
        self,
        key: Question,
        layers: Sequence[str],
        limit: int,
        slots: Mapping[str, Slot],
        memo: bytes,
    ) -> bool:
        """Keep the answer made from `slots`, if they are still what is held; True if it is.

        It is given out with the next probe for just these layers and this limit.
        """
        record = self._records.get(key)
        if record is None:
            return False
        held = record.slots
        if any(
            held.get(name) is not slots[name] or not slots[name].serves(limit) for name in layers
        ):
            return False
        view = View.over(record, tuple(layers), limit, memo)
        if record.size_bytes + VIEW_BYTES + len(memo) > self._max_bytes:
            return False
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
        record = self._records.get(key) or Record(key, self._invalidations.epoch)
        if not slot.items:
            slot.ttl_ms = min(slot.ttl_ms, _empty_ttl_ms(key, slot.stored_ms))
        if not self._admissible(record, layer, slot, now_ms):
            self._statistics.drop("refused")
            return False
        self._slot_store.put(record, layer, slot)
        return record.slots.get(layer) is slot

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
            count = len(read_back.slots) if read_back else 0
        else:
            count = self._slot_store.tallies.order(generation, layer, scope, tags)
        self._statistics.obeyed(generation, count)
        return count

    def forget_all(self) -> None:
        """Drop all that is held, and every order: what they were counted by begins anew."""
        for record in list(self._records.values()):
            for layer in list(record.slots):
                self._slot_store.drop(record, layer, "invalidated")
        self._invalidations.begin_anew()

    def invalidate_layer(self, layer: str) -> int:
        """Drop all that is held of a layer, here and now; returns the number of slots.

        For a cache of its own: in a pipeline the order goes through `control`.
        """
        concerned = [record for record in self._records.values() if layer in record.slots]
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
        slots = record.slots if record is not None else {}
        return all(name in slots and slots[name].expires_ms > now_ms for name in layers)

    def ageing(self, now_ms: float) -> Iterator[Ageing]:
        """Questions that were asked again, with layers that have under a quarter of their TTL."""
        for record in self._records.values():
            key = record.key
            if not record.hits or isinstance(key, str):
                continue
            slots = {name: s for name, s in record.slots.items() if s.ageing(now_ms)}
            if slots:
                limit = max(slot.limit for slot in slots.values())
                cost_ms = sum(slot.cost_ms for slot in slots.values())
                yield Ageing(key, tuple(slots), limit, record.hits, cost_ms)

    # -- statistics, by the names the original gave them

    @property
    def hit_rate(self) -> float:
        """Share of probes for which nothing had to be fetched."""
        counted = self._counted()
        return counted.full_hits / counted.probes if counted.probes else 0.0

    @property
    def total_queries_saved(self) -> int:
        """Probes for which nothing had to be fetched."""
        return self._counted().full_hits

    @property
    def avg_layers_per_hit(self) -> float:
        """Layers served at such a probe."""
        counted = self._counted()
        return counted.layers_hit_in_full / counted.full_hits if counted.full_hits else 0.0

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
        counted = self._counted()
        wanted = counted.layers_wanted
        return {
            "hit_rate": self.hit_rate,
            "total_queries_saved": counted.full_hits,
            "avg_layers_per_hit": self.avg_layers_per_hit,
            "cache_size_mb": self.cache_size_mb,
            "top_hit_entries": self.top_hit_entries,
            "entries": len(self._records),
            "slots": self._slot_store.slots,
            "size_bytes": self._slot_store.size_bytes,
            "probes": counted.probes,
            "partial_hits": counted.partial_hits,
            "layer_hit_rate": counted.layers_hit / wanted if wanted else 0.0,
            "memo_hits": counted.memo_hits,
            "saved_ms": counted.saved_ms,
            "refreshes": counted.refreshes,
            "orders": counted.orders,
            "evictions": dict(counted.evictions),
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
        if record is not None:
            ordered = record.epoch != self._invalidations.epoch
            self._verify(record, now_ms)
            if ordered and record.view is not None:
                return self.probe(key, layers, limit=limit, max_age_ms=max_age_ms, now_ms=now_ms)
        probe = sift(record.slots if record else {}, layers, limit, max_age_ms, now_ms)
        if probe.missing and self._slot_store.read_back and max_age_ms != 0:
            record = self._adopt(key, now_ms)
            probe = sift(record.slots if record else {}, layers, limit, max_age_ms, now_ms)
        if record is not None and probe.hits:
            return self._hit(record, layers, limit, probe)
        self._statistics.partly(len(layers), probe)
        return probe

    def _hit(self, record: Record, layers: tuple[str, ...], limit: int, probe: Probe) -> Probe:
        if self._touch is not None:
            self._touch(record)
        if not probe.missing:
            probe = view = View.over(record, layers, limit, hits=probe.hits)
            self._slot_store.set_view(record, view)
        else:
            self._statistics.partly(len(layers), probe)
            if record.view is not None:
                record.view.since += 1  # it does not serve this one
        record.hits += 1
        return probe

    def _verify(self, record: Record, now_ms: float) -> None:
        """Drop what has expired, and what an order that came since the last time has killed."""
        ordered = record.epoch != self._invalidations.epoch
        for layer, slot in record.slots.items():
            if now_ms >= slot.expires_ms:
                self._slot_store.drop(record, layer, "expired")
            elif ordered and self._killed(record, layer, slot):
                self._slot_store.drop(record, layer, "invalidated")
        record.epoch = self._invalidations.epoch
        if record.view is not None:
            record.view.epoch = record.epoch

    def _killed(self, record: Record, layer: str, slot: Slot) -> bool:
        latest = self._invalidations.latest(layer, record.scope, slot.tags, lambda: record.digest)
        return latest >= slot.generation

    def _admissible(self, record: Record, layer: str, slot: Slot, now_ms: float) -> bool:
        others = record.slots
        held = others.pop(layer, None)
        if held is not None and held.stored_ms >= slot.stored_ms:
            return False
        if now_ms >= slot.expires_ms or slot.stored_ms > now_ms + _AHEAD_MS:
            return False
        if self._killed(record, layer, slot):
            return False
        others_bytes = RECORD_BYTES + record.key_bytes + sum(s.size_bytes for s in others.values())
        return slot.size_bytes + others_bytes <= self._max_bytes

    def _adopt(self, key: Question, now_ms: float) -> Record | None:
        """Put what was read back under its digest where it belongs, now that its key is known."""
        read_back = self._records.get(question_digest(key))
        if read_back is not None:
            slots = read_back.slots
            for layer in slots:
                self._slot_store.drop(read_back, layer, None)
            for layer, slot in slots.items():
                self.store(key, layer, slot, now_ms)
        return self._records.get(key)

    def _counted(self) -> Statistics:
        """The statistics, with the hits that views have served since they were last asked."""
        for record in self._records.values():
            if record.view is not None:
                self._statistics.fold(record, record.view)
        return self._statistics


def _empty_ttl_ms(key: Question | str, stored_ms: float) -> int:
    """By chance, but always the same: what came in one burst does not end in one."""
    chance = hash((key, stored_ms)) % 1024 / 1024
    return int(_EMPTY_TTL_MS * (1 - chance / 2))
