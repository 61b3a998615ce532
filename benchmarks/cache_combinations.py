"""What caching combinations of layers really gains over caching layers one by one.

    python benchmarks/cache_combinations.py [--quick]

The original claims hit rates of 30-40% for single layers and 65% for combinations. Here the same
questions meet three caches of the same policy, TTLs and byte budget:

- single layers: an entry per question and layer;
- exact combinations: an entry per question and set of layers, as the original has it;
- slots: `CrossLayerCache`, a record per question and in it a slot per layer, with layers that age
  refreshed beside a partial miss.

Questions are Zipf 0.9 over 20,000, of 20 types; each type has three sets of layers, asked for with
.7/.2/.1; ten questions a second; TTLs as the original's.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable
from itertools import accumulate

from msgspec import Struct
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from anabranch.cache.cross_layer_cache import CrossLayerCache, Slot
from anabranch.cache.keys import make_key
from anabranch.contract.events import Item

SCALE = 10 if "--quick" in sys.argv else 1
QUESTIONS = 20_000 // SCALE
REQUESTS = 300_000 // SCALE
BUDGET_BYTES = 8_000_000 // SCALE
STEP_MS = 100.0 * SCALE
COST_MS = {"episodic": 25, "semantic": 70, "graph": 30, "procedural": 140, "meta": 12}
"""Median of each layer; lognormal by question (sigma 0.5)."""
ITEMS = [Item("urn:x", 1.0)]

Layers = tuple[str, ...]


class Asked(Struct):
    """A question with the layers wanted, and what fetching each takes."""

    number: int
    layers: Layers
    at_ms: float


class Tally(Struct):
    """What one of the caches did."""

    full: int = 0
    layers_hit: int = 0
    layers_wanted: int = 0
    saved_ms: float = 0.0
    total_ms: float = 0.0
    fetched: int = 0


class World:
    """Questions, their costs and sizes: the same for every cache."""

    def __init__(self, seed: int) -> None:
        self._rng = rng = random.Random(seed)
        self._sets = [
            [tuple(rng.sample(sorted(COST_MS), count)) for count in (2, 3, 1)] for _ in range(20)
        ]
        self.cost_ms = {
            layer: [median * rng.lognormvariate(0, 0.5) for _ in range(QUESTIONS)]
            for layer, median in COST_MS.items()
        }
        self.size_bytes = {
            layer: [int(rng.lognormvariate(math.log(2_000), 1)) for _ in range(QUESTIONS)]
            for layer in COST_MS
        }

    def trace(self) -> list[Asked]:
        weights = list(accumulate((rank + 1) ** -0.9 for rank in range(QUESTIONS)))
        numbers = self._rng.choices(range(QUESTIONS), cum_weights=weights, k=REQUESTS)
        sets = self._rng.choices(range(3), weights=(0.7, 0.2, 0.1), k=REQUESTS)
        return [
            Asked(number, self._sets[number % 20][which], at * STEP_MS)
            for at, (number, which) in enumerate(zip(numbers, sets, strict=True))
        ]

    def slot(self, number: int, layers: Layers, now_ms: float, ttl_ms: int) -> Slot:
        """What is stored of `layers`, as one."""
        cost_ms = sum(self.cost_ms[layer][number] for layer in layers)
        size_bytes = sum(self.size_bytes[layer][number] for layer in layers)
        return Slot(ITEMS, False, 20, now_ms, ttl_ms, 0, (), cost_ms, size_bytes)


Ask = Callable[[CrossLayerCache, World, Asked], tuple[set[str], set[str]]]
"""Ask a cache: which layers it had, and which were fetched."""


def ask_single_layers(cache: CrossLayerCache, world: World, asked: Asked) -> tuple[set, set]:
    hits = set()
    for layer in asked.layers:
        key = make_key("t", "", {"n": asked.number, "layer": layer})
        probe = cache.probe(key, (layer,), limit=20, max_age_ms=None, now_ms=asked.at_ms)
        if probe.missing:
            slot = world.slot(asked.number, (layer,), asked.at_ms, cache.ttl_for(layer))
            cache.store(key, layer, slot, asked.at_ms)
        else:
            hits.add(layer)
    return hits, set(asked.layers) - hits


def ask_combinations(cache: CrossLayerCache, world: World, asked: Asked) -> tuple[set, set]:
    key = make_key("t", "", {"n": asked.number, "layers": sorted(asked.layers)})
    probe = cache.probe(key, ("all",), limit=20, max_age_ms=None, now_ms=asked.at_ms)
    if not probe.missing:
        return set(asked.layers), set()
    ttl_ms = min(cache.ttl_for(layer) for layer in asked.layers)
    slot = world.slot(asked.number, asked.layers, asked.at_ms, ttl_ms)
    cache.store(key, "all", slot, asked.at_ms)
    return set(), set(asked.layers)


def ask_slots(cache: CrossLayerCache, world: World, asked: Asked) -> tuple[set, set]:
    key = make_key("t", "", {"n": asked.number})
    probe = cache.probe(key, asked.layers, limit=20, max_age_ms=None, now_ms=asked.at_ms)
    hits, fetched = set(probe.hits), {*probe.missing, *probe.refresh}
    for layer in fetched:
        slot = world.slot(asked.number, (layer,), asked.at_ms, cache.ttl_for(layer))
        cache.store(key, layer, slot, asked.at_ms)
    return hits, fetched


CACHES: dict[str, Ask] = {
    "single layers": ask_single_layers,
    "exact combinations": ask_combinations,
    "slots": ask_slots,
}


def replay(ask: Ask, world: World, trace: list[Asked], advance: Callable[[], None]) -> Tally:
    cache = CrossLayerCache(len(COST_MS) * QUESTIONS, max_bytes=BUDGET_BYTES)
    tally = Tally()
    for asked in trace:
        hits, fetched = ask(cache, world, asked)
        cost_ms = {layer: world.cost_ms[layer][asked.number] for layer in asked.layers}
        tally.full += hits == set(asked.layers)
        tally.layers_hit += len(hits)
        tally.layers_wanted += len(asked.layers)
        tally.fetched += len(fetched)
        tally.total_ms += sum(cost_ms.values())
        tally.saved_ms += sum(cost_ms.values()) - sum(cost_ms[layer] for layer in fetched)
        advance()
    return tally


def main() -> None:
    world = World(seed=5)
    trace = world.trace()
    table = Table("cache", "full hits", "layer hits", "time saved", "fetched")
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("questions", total=len(CACHES) * len(trace))
        for name, ask in CACHES.items():
            tally = replay(ask, world, trace, lambda: progress.advance(task))
            ratios = (
                tally.full / len(trace),
                tally.layers_hit / tally.layers_wanted,
                tally.saved_ms / tally.total_ms,
            )
            table.add_row(name, *(f"{ratio:.1%}" for ratio in ratios), f"{tally.fetched:,}")
    Console().print(table)


if __name__ == "__main__":
    main()
