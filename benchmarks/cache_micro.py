"""What a lookup costs, and what an entry takes beyond its payload.

    python benchmarks/cache_micro.py

Times are medians over many runs of a hundred calls, the empty loop taken off. All lookups are of
different questions in turn, of which 4,000 are held with two layers each.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from itertools import cycle
from statistics import median
from time import perf_counter_ns

from anabranch.cache.cross_layer_cache import CrossLayerCache, Probe, Slot
from anabranch.cache.keys import make_key, question_digest
from anabranch.contract.events import Item

COUNT = 4_000
LAYERS = ("semantic", "graph")
ITEMS = [Item("urn:x", 1.0)]
TARGETS = {
    "full hit, prepared": 500.0,
    "bytes of an entry beyond its payload, 1 layer": 400.0,
    "bytes of an entry beyond its payload, 2 layers": 500.0,
    "bytes of an entry beyond its payload, 3 layers": 600.0,
}


def median_ns(operation: Callable[[], object], *, runs: int = 3_000, loops: int = 100) -> float:
    """Median over `runs` of the mean time of `loops` calls, less an empty call's."""

    def measure(called: Callable[[], object]) -> float:
        times = []
        for _ in range(runs):
            start = perf_counter_ns()
            for _ in range(loops):
                called()
            times.append((perf_counter_ns() - start) / loops)
        return median(times)

    return measure(operation) - measure(lambda: None)


def params(number: int) -> dict[str, object]:
    return {"text": f"what is {number}", "limit": number}


def slot(number: int) -> Slot:
    return Slot(ITEMS, False, 20, 1e12 + number, 300_000, 0, (), 10.5 + number, 1_000 + number)


def filled(layers: tuple[str, ...] = LAYERS) -> CrossLayerCache:
    cache = CrossLayerCache(COUNT)
    for number in range(COUNT):
        for layer in layers:
            cache.store(make_key("factual", "", params(number)), layer, slot(number), 1e12)
    return cache


def lookups() -> dict[str, float]:
    """Nanoseconds by kind of lookup."""
    cache = filled()
    keys = cycle([make_key("factual", "", params(number)) for number in range(COUNT)])
    asked = cycle([params(number) for number in range(COUNT)])
    other = make_key("factual", "", {"text": "never asked"})

    def look(key: tuple[object, ...], *layers: str) -> Probe:
        return cache.probe(key, layers or LAYERS, limit=20, max_age_ms=None, now_ms=1e12)

    for _ in range(COUNT):
        key = next(keys)
        cache.remember(key, LAYERS, 20, look(key).hits, b"answer", 39)
    return {
        "full hit, prepared": median_ns(
            lambda: cache.prepared(next(keys), LAYERS, limit=20, max_age_ms=None, now_ms=1e12)
        ),
        "lookup, prepared key": median_ns(
            lambda: cache.probe(next(keys), LAYERS, limit=20, max_age_ms=None, now_ms=1e12)
        ),
        "lookup, with key building": median_ns(
            lambda: cache.probe(
                make_key("factual", "", next(asked)), LAYERS, limit=20, max_age_ms=None, now_ms=1e12
            )
        ),
        "lookup, another combination": median_ns(lambda: look(next(keys), "graph", "meta")),
        "lookup, nothing there": median_ns(lambda: look(other)),
        "key building": median_ns(lambda: make_key("factual", "", next(asked))),
        "digest": median_ns(lambda: question_digest(other)),
    }


def stores() -> dict[str, float]:
    """Nanoseconds of a store into a cache that is full."""
    cache = filled()
    fresh = iter(make_key("factual", "new", params(number)) for number in range(10**9))
    return {
        "store, another has to go": median_ns(
            lambda: cache.store(next(fresh), "graph", slot(1), 1e12), runs=300
        )
    }


def entry_bytes(layers: tuple[str, ...]) -> float:
    """Memory of an entry less its items; the strings of its params are the question's own."""
    questions = [params(number) for number in range(COUNT)]
    gc.collect()  # what lies in free lists would be taken from there, and not be seen
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    cache = CrossLayerCache(COUNT)
    for number, question in enumerate(questions):
        for layer in layers:
            cache.store(make_key("factual", "", question), layer, slot(number), 1e12)
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return held / len(cache)


def main() -> None:
    found = lookups() | stores()
    for count in (1, 2, 3):
        name = f"bytes of an entry beyond its payload, {count} layer{'s' * (count > 1)}"
        found[name] = entry_bytes(("semantic", "graph", "meta")[:count])
    for name, value in found.items():
        target = f"target {TARGETS[name]:,.0f}" if name in TARGETS else ""
        unit = "" if name.startswith("bytes") else "ns"
        print(f"{name:50}{value:10,.0f} {unit:3} {target}")


if __name__ == "__main__":
    main()
