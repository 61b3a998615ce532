"""The cache against LRU and Belady's offline optimum, on seeded traces.

    python benchmarks/cache_traces.py [--quick]

First with entries of one size and cost: the share of the gap between LRU's and Belady's hit ratio
that the cache closes. Then under a cost law (time and size lognormal, independent of popularity):
the share of back-end time saved within a byte budget. What is replayed is `CrossLayerCache` as it
ships, through `probe` and `store`. `--quick` is the same at a tenth of the size.
"""

from __future__ import annotations

import heapq
import math
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from anabranch.cache.cross_layer_cache import CrossLayerCache, Slot
from anabranch.cache.keys import make_key
from anabranch.contract.events import Item

QUICK = "--quick" in sys.argv
SCALE = 10 if QUICK else 1
KEYS = 50_000 // SCALE
REQUESTS = 1_000_000 // SCALE
CAPACITIES = (500 // SCALE, 5_000 // SCALE)
TARGETS = {"gap": 0.60, "stationary": 0.69, "drifting": 0.65}
ITEMS = [Item("urn:x", 1.0)]

Trace = list[int]


def zipf(rng: random.Random, alpha: float, count: int, names: Sequence[int]) -> Trace:
    """Requests whose popularity falls with the power `alpha` of the rank; `names` by rank."""
    weights = list(accumulate((rank + 1) ** -alpha for rank in range(len(names))))
    return rng.choices(names, cum_weights=weights, k=count)


def shuffled(rng: random.Random) -> Trace:
    """All keys in an order of chance: who is popular."""
    return rng.sample(range(KEYS), KEYS)


def drifting(rng: random.Random, alpha: float, every: int) -> Trace:
    """Zipf, with a new order of popularity after `every` requests."""
    parts = (zipf(rng, alpha, every, shuffled(rng)) for _ in range(0, REQUESTS, every))
    return [n for part in parts for n in part]


def scan(rng: random.Random) -> Trace:
    """Zipf 0.9, and after every 20,000 requests 10,000 keys that are asked for once."""
    names, trace, fresh = shuffled(rng), [], KEYS
    while len(trace) < REQUESTS:
        trace += zipf(rng, 0.9, 20_000 // SCALE, names)
        trace += range(fresh, fresh + 10_000 // SCALE)
        fresh += 10_000 // SCALE
    return trace[:REQUESTS]


def zipf_and_loop(rng: random.Random) -> Trace:
    """Zipf 0.9, in turns with a loop over 10,000 other keys."""
    popular = zipf(rng, 0.9, REQUESTS // 2, shuffled(rng))
    return [n for i, p in enumerate(popular) for n in (p, KEYS + i % (10_000 // SCALE))]


TRACES: dict[str, Callable[[random.Random], Trace]] = {
    "Zipf 0.8": lambda rng: zipf(rng, 0.8, REQUESTS, shuffled(rng)),
    "Zipf 1.0": lambda rng: zipf(rng, 1.0, REQUESTS, shuffled(rng)),
    "scan": scan,
    "loop": lambda rng: [n % KEYS for n in range(REQUESTS)],
    "Zipf 0.9 and loop": zipf_and_loop,
    "drift": lambda rng: drifting(rng, 1.0, 100_000 // SCALE),
}


def belady(trace: Trace, capacity: int) -> float:
    """Hit ratio of evicting what is asked again last (Belady, 1966)."""
    following, later = [0] * len(trace), dict[int, int]()
    for at in range(len(trace) - 1, -1, -1):
        following[at] = later.get(trace[at], len(trace))
        later[trace[at]] = at
    held, order, hits = dict[int, int](), list[tuple[int, int]](), 0
    for n, again in zip(trace, following, strict=True):
        hits += n in held
        held[n] = again
        heapq.heappush(order, (-again, n))
        while len(held) > capacity:
            when, victim = heapq.heappop(order)
            if held.get(victim) == -when:
                del held[victim]
    return hits / len(trace)


def replay(
    cache: CrossLayerCache,
    trace: Trace,
    cost_ms: Callable[[int], float] = lambda n: 1.0,
    size_bytes: Callable[[int], int] = lambda n: 1,
) -> float:
    """Share of the back ends' time that a cache saves: of the requests, if all cost the same."""
    keys = {n: make_key("t", "", {"n": n}) for n in set(trace)}
    total_ms = 0.0
    for n in trace:
        total_ms += cost_ms(n)
        probe = cache.probe(keys[n], ("a",), limit=20, max_age_ms=None, now_ms=0.0)
        if probe.missing:
            slot = Slot(ITEMS, True, 20, 0.0, 1, 0, (), cost_ms(n), size_bytes(n))
            cache.store(keys[n], "a", slot, 0.0)
    return float(cache.stats()["saved_ms"]) / total_ms


def gaps(progress: Progress) -> Iterator[tuple[str, int, float, float, float]]:
    """Trace, capacity, and hit ratios of LRU, the cache and Belady."""
    task = progress.add_task("hit ratio", total=3 * len(TRACES) * len(CAPACITIES))
    for name, make in TRACES.items():
        trace = make(random.Random(1))
        for capacity in CAPACITIES:
            found = []
            for run in (
                lambda t, c: replay(CrossLayerCache(c, policy="lru"), t),
                lambda t, c: replay(CrossLayerCache(c), t),
                belady,
            ):
                found.append(run(trace, capacity))
                progress.advance(task)
            yield name, capacity, *found  # type: ignore[misc]


def savings(progress: Progress) -> Iterator[tuple[str, float, float]]:
    """Law of popularity, and back-end time saved by LRU and by the cache."""
    task = progress.add_task("back-end time", total=4)
    rng = random.Random(3)
    cost_ms = [rng.lognormvariate(math.log(80), 1) for _ in range(KEYS)]
    size_bytes = [int(rng.lognormvariate(math.log(4_096), 1)) for _ in range(KEYS)]
    for name, every in (("stationary", REQUESTS), ("drifting", REQUESTS // 5)):
        trace, saved = drifting(rng, 0.9, every), []
        for policy in ("lru", "s3fifo"):
            cache = CrossLayerCache(KEYS // 5, max_bytes=sum(size_bytes) // 20, policy=policy)
            saved.append(replay(cache, trace, cost_ms.__getitem__, size_bytes.__getitem__))
            progress.advance(task)
        yield name, saved[0], saved[1]


def main() -> None:
    console = Console()
    hits = Table("trace", "capacity", "LRU", "cache", "Belady", "gap closed")
    saved = Table("popularity", "LRU", "cache", "target")
    closed = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for name, capacity, lru, ours, best in gaps(progress):
            closed.append((ours - lru) / (best - lru))
            row = (f"{ratio:.3f}" for ratio in (lru, ours, best, closed[-1]))
            hits.add_row(name, f"{capacity:,}", *row)
        for law, lru, ours in savings(progress):
            saved.add_row(law, f"{lru:.3f}", f"{ours:.3f}", f"{TARGETS[law]:.2f}")
    console.print(hits)
    mean = sum(closed) / len(closed)
    console.print(f"mean share of the gap closed: {mean:.3f} (target {TARGETS['gap']:.2f})\n")
    console.print(saved)


if __name__ == "__main__":
    main()
