"""How near the selector's choices come to an oracle's, in seeded worlds that change.

A world: 20 query types (weights 1/rank), each with three sets (.7/.2/.1) of one to five layers
with medians 25, 70, 30, 140 and 12 ms, lognormal (sigma .5), 1% of calls twenty times slower.
Every 5,000 queries another layer changes by 4x, 6x or .5x (the last one recovers), and load,
contention and warm shares are drawn anew. Outcomes are seen 20 queries late, load with noise.
A query every 10 ms. What arms really cost is not what the formulas assume (`World.costs`).

regret: mean over decided queries of expected cost of the chosen arm / the best arm's - 1.
latency: expected cost of all queries (cached ones 1 ms) / the oracle's.

    python benchmarks/selection_worlds.py [--quick]
"""

from __future__ import annotations

import random
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import exp, sin

from anabranch.contract.events import LayerDescriptor
from anabranch.contract.plan import Arm, Decision, GroupLoad, PlanContext
from anabranch.contract.telemetry import ExecutionTelemetry, LayerOutcome, telemetry_of
from anabranch.learn.cost_model import CostModel, CostPriors
from anabranch.learn.dependency_graph import DependencyGraph
from anabranch.learn.profiler import LayerProfiler
from anabranch.select.adaptive_strategy_selector import AdaptiveStrategySelector, Mode

MEDIANS_MS = {"a": 25.0, "b": 70.0, "c": 30.0, "d": 140.0, "e": 12.0}
SIGMA, OUTLIER, SLOWER = 0.5, 0.01, 20.0
PHASE, LATE, INTERVAL_MS = 5_000, 20, 10
QUEUE_MS = 8.0
"""What one queued task is taken to cost by the formula; really it is 20 ms."""
PAPER = CostPriors(sequential_wait=0.0, parallel_wait=0.0)
"""In this world only DISTRIBUTED waits for the pool."""

Layers = tuple[str, ...]


@dataclass(slots=True)
class Ask:
    """One query: what is wanted and missing, the queue, and its length as it is seen."""

    number: int
    type: str
    wanted: Layers
    missing: Layers
    queue: float
    seen_queue: float


class World:
    """Queries, and what each arm costs for them at that moment."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        names = sorted(MEDIANS_MS)
        self._types = [[self._subset(names) for _ in range(3)] for _ in range(20)]
        self._spread = 0.0
        self._new_phase(first=True)

    def queries(self, count: int) -> Iterator[Ask]:
        rng = self._rng
        weights = [1 / (rank + 1) for rank in range(20)]
        for number in range(count):
            if number and number % PHASE == 0:
                self._new_phase()
            kind = rng.choices(range(20), weights)[0]
            wanted = rng.choices(self._types[kind], (0.7, 0.2, 0.1))[0]
            missing = tuple(name for name in wanted if rng.random() >= self._warm[kind])
            rho = self._load + 0.12 * sin(number / 1_500) + 0.1 * self._spread
            queue = (rho := min(0.97, max(0.0, rho))) / (1 - rho)
            seen = queue * exp(0.3 * rng.gauss(0, 1))
            yield Ask(number, f"t{kind}", wanted, missing, queue, seen)

    def costs(self, ask: Ask) -> dict[Arm, float]:
        """Expected cost of each arm, which only the oracle knows."""
        longest = self._longest[ask.missing]
        average = exp(SIGMA**2 / 2) * (1 + OUTLIER * (SLOWER - 1))
        return {
            "sequential": average * sum(self._medians[name] for name in ask.missing) + 1,
            "parallel": longest * self._crowding(ask.missing) + 3,
            "distributed": 0.4 * longest + 40 + 20 * ask.queue,
        }

    def run(self, ask: Ask, arm: Arm) -> tuple[dict[str, float], float]:
        """Latency of each layer, and of the whole."""
        took = {name: self._medians[name] * self._noise() for name in ask.missing}
        self._spread += 0.005 * ((arm == "distributed") - self._spread)
        if arm == "sequential":
            return took, sum(took.values()) + 1
        if arm == "parallel":
            return took, max(took.values()) * self._crowding(ask.missing) + 3
        return took, 0.4 * max(took.values()) + 40 + 20 * ask.queue

    def _new_phase(self, *, first: bool = False) -> None:
        rng = self._rng
        self._medians = dict(MEDIANS_MS)
        if not first:
            self._medians[rng.choice(sorted(MEDIANS_MS))] *= rng.choice((4.0, 6.0, 0.5))
        self._load = rng.choice((0.2, 0.5, 0.75, 0.9))
        self._contention = rng.choice((0.5, 1.0, 3.0))
        self._warm = [rng.uniform(0.05, 0.95) for _ in range(20)]
        self._longest = self._expected_longest()

    def _expected_longest(self) -> dict[Layers, float]:
        draws = [
            {name: median * self._noise() for name, median in self._medians.items()}
            for _ in range(400)
        ]
        return {
            names: sum(max(draw[name] for name in names) for draw in draws) / len(draws)
            for size in range(1, 6)
            for names in combinations(sorted(MEDIANS_MS), size)
        }

    def _subset(self, names: Sequence[str]) -> Layers:
        return tuple(sorted(self._rng.sample(names, self._rng.randint(1, 5))))

    def _noise(self) -> float:
        slower = SLOWER if self._rng.random() < OUTLIER else 1.0
        return slower * exp(SIGMA * self._rng.gauss(0, 1))

    def _crowding(self, names: Layers) -> float:
        return 1 + 0.12 * self._contention * (len(names) - 1)


def selector(mode: Mode) -> AdaptiveStrategySelector:
    """A selector as the coordinator builds it."""
    profiler = LayerProfiler()
    graph = DependencyGraph(profiler)
    return AdaptiveStrategySelector(profiler, graph, mode=mode, cost_model=CostModel(PAPER))


def context_of(ask: Ask) -> PlanContext:
    """What the selector sees of a query."""
    return PlanContext(
        query=f"q{ask.number}",
        type=ask.type,
        wanted=ask.wanted,
        cached=tuple(name for name in ask.wanted if name not in ask.missing),
        missing=tuple(LayerDescriptor(name, "pool") for name in ask.missing),
        groups={"pool": GroupLoad(8, QUEUE_MS * ask.seen_queue)},
        remaining_ms=60_000,
    )


def record_of(
    ask: Ask, context: PlanContext, decision: Decision, took: dict[str, float], total_ms: float
) -> ExecutionTelemetry:
    """What the coordinator records of the answer."""
    outcomes = [
        LayerOutcome(name, decision.strategy, took_ms=took[name], elapsed_ms=total_ms)
        if name in took
        else LayerOutcome(name, "cache")
        for name in ask.wanted
    ]
    at_ms = ask.number * INTERVAL_MS
    return telemetry_of(context, decision, outcomes, at_ms=at_ms, total_ms=total_ms, success=True)


def regret(seed: int, mode: Mode, count: int) -> tuple[float, float]:
    """(regret, latency / oracle's) of a selector in the world of a seed."""
    world, chooser = World(seed), selector(mode)
    late: deque[ExecutionTelemetry] = deque()
    excess = decided = spent = best = 0.0
    for ask in world.queries(count):
        if not ask.missing:
            spent, best = spent + 1, best + 1
            continue
        context = context_of(ask)
        decision = chooser.decide(context)
        arm = decision.parts[0].arm if decision.parts else "parallel"
        costs = world.costs(ask)
        least = min(costs.values())
        excess, decided = excess + costs[arm] / least - 1, decided + 1
        spent, best = spent + costs[arm], best + least
        late.append(record_of(ask, context, decision, *world.run(ask, arm)))
        if len(late) > LATE:
            chooser.observe(late.popleft())
    return excess / decided, spent / best


def main() -> None:
    quick = "--quick" in sys.argv
    worlds, count = (3, 15_000) if quick else (8, 60_000)
    print(f"{worlds} worlds of {count:,} queries; the oracle's regret is 0, its latency 1")
    print(f"{'':10}{'regret mean':>12}{'worst':>8}{'latency mean':>14}{'worst':>8}")
    for mode in ("rules", "learned"):
        found = [regret(seed, mode, count) for seed in range(worlds)]
        regrets, latencies = zip(*found, strict=True)
        print(
            f"{mode:10}{sum(regrets) / worlds:>12.3f}{max(regrets):>8.3f}"
            f"{sum(latencies) / worlds:>14.3f}{max(latencies):>8.3f}"
        )


if __name__ == "__main__":
    main()
