"""Caches and slots that are alike but for what a test is about."""

from __future__ import annotations

from typing import Any

from anabranch.cache.cross_layer_cache import CrossLayerCache
from anabranch.cache.keys import Question, make_key
from anabranch.cache.slots import Probe, Slot
from anabranch.contract.events import Item

KEY = make_key("factual", "", {"text": "why"})
OTHER = make_key("factual", "", {"text": "who"})
TTL_MS = 100_000


def slot(count: int = 3, **changes: Any) -> Slot:
    items = [Item(f"urn:{n}", 1.0 - n / 100) for n in range(count)]
    fields: dict[str, Any] = {
        "items": items, "complete": False, "limit": 20, "stored_ms": 0.0, "ttl_ms": TTL_MS,
        "generation": 5, "cost_ms": 10.0,
    }  # fmt: skip
    return Slot(**(fields | changes))


def sized(size_bytes: int, **changes: Any) -> Slot:
    return slot(1, size_bytes=size_bytes, **changes)


def key(n: int, scope: str = "") -> Question:
    return make_key("factual", scope, {"n": n})


def ask(
    cache: CrossLayerCache,
    *layers: str,
    of: Question = KEY,
    limit: int = 20,
    now_ms: float = 0.0,
    max_age_ms: int | None = None,
) -> Probe:
    return cache.probe(of, layers, limit=limit, max_age_ms=max_age_ms, now_ms=now_ms)


def holding(*layers: str, **changes: Any) -> CrossLayerCache:
    cache = CrossLayerCache()
    for layer in layers:
        assert cache.store(KEY, layer, slot(**changes), 0.0)
    return cache
