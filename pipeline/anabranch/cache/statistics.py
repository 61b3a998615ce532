"""What the cache was good for, as plain counters."""

from __future__ import annotations

from typing import Any, Final, Literal

from anabranch.cache.records import Record, View
from anabranch.cache.slots import Probe

__all__ = ["Cause", "Statistics"]

Cause = Literal["capacity", "expired", "invalidated", "refused", "replaced"]
"""Why a slot went: evicted or not admitted for room, too old, ordered to, refused, a later one."""


MAX_LATEST_ORDERS: Final = 64
"""Orders of which is remembered how many slots they concerned."""


class Statistics:
    """Counters of one cache; ratios are made when they are read."""

    __slots__ = (
        "evictions", "full_hits", "latest_orders", "layers_hit", "layers_hit_in_full",
        "layers_wanted", "memo_hits", "orders", "partial_hits", "probes", "refreshes", "saved_ms",
    )  # fmt: skip

    def __init__(self) -> None:
        self.probes = 0
        self.full_hits = 0
        self.partial_hits = 0
        self.layers_wanted = 0
        self.layers_hit = 0
        self.layers_hit_in_full = 0
        self.memo_hits = 0
        self.refreshes = 0
        self.saved_ms = 0.0
        self.orders = 0
        self.latest_orders: dict[int, int] = {}
        self.evictions: dict[Cause, int] = {
            "capacity": 0,
            "expired": 0,
            "invalidated": 0,
            "refused": 0,
            "replaced": 0,
        }

    @property
    def hit_rate(self) -> float:
        """Share of probes for which nothing had to be fetched."""
        return self.full_hits / self.probes if self.probes else 0.0

    @property
    def avg_layers_per_hit(self) -> float:
        """Layers served at such a probe."""
        return self.layers_hit_in_full / self.full_hits if self.full_hits else 0.0

    def read(self) -> dict[str, Any]:
        """All of it, as JSON can say it."""
        return {
            "hit_rate": self.hit_rate,
            "total_queries_saved": self.full_hits,
            "avg_layers_per_hit": self.avg_layers_per_hit,
            "probes": self.probes,
            "partial_hits": self.partial_hits,
            "layer_hit_rate": self.layers_hit / self.layers_wanted if self.layers_wanted else 0.0,
            "memo_hits": self.memo_hits,
            "saved_ms": self.saved_ms,
            "refreshes": self.refreshes,
            "orders": self.orders,
            "evictions": dict(self.evictions),
        }

    def fold(self, record: Record, view: View) -> None:
        """Count the hits that a view has served since it was last counted."""
        count = record.hits - view.since
        view.since = record.hits
        self.probes += count
        self.full_hits += count
        self.layers_wanted += count * len(view.layers)
        self.layers_hit += count * len(view.layers)
        self.layers_hit_in_full += count * len(view.layers)
        self.saved_ms += count * view.cost_ms
        self.memo_hits += count if view.memo is not None else 0

    def partly(self, wanted: int, probe: Probe) -> None:
        """Count a probe after which something had to be fetched."""
        self.probes += 1
        self.partial_hits += bool(probe.hits)
        self.layers_wanted += wanted
        self.layers_hit += len(probe.hits)
        self.refreshes += len(probe.refresh)
        self.saved_ms += sum([slot.cost_ms for slot in probe.hits.values()])

    def drop(self, cause: Cause) -> None:
        """Count a slot that went, or did not come."""
        self.evictions[cause] += 1

    def obeyed(self, generation: int, count: int) -> None:
        """Count an order, and how many slots it concerned."""
        self.orders += 1
        self.latest_orders[generation] = count
        if len(self.latest_orders) > MAX_LATEST_ORDERS:
            del self.latest_orders[next(iter(self.latest_orders))]
