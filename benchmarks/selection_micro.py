"""What a decision and a telemetry record cost, each as the median of many runs.

python benchmarks/selection_micro.py
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from statistics import median
from time import thread_time

from anabranch.contract.events import LayerDescriptor
from anabranch.contract.plan import GroupLoad, PlanContext
from anabranch.contract.telemetry import ExecutionTelemetry, LayerOutcome, telemetry_of
from anabranch.learn.dependency_graph import DependencyGraph
from anabranch.learn.profiler import LayerProfiler
from anabranch.select.adaptive_strategy_selector import AdaptiveStrategySelector, Mode

TARGETS_US = {"decision, learned": 2.0, "telemetry record": 2.0}


def median_us(operation: Callable[[int], object], *, runs: int = 2_000, loops: int = 32) -> float:
    """Median over `runs` of the mean time of `loops` calls, in microseconds."""
    times = []
    for run in range(runs):
        start = thread_time()
        for loop in range(loops):
            operation(run * loops + loop)
        times.append((thread_time() - start) / loops * 1e6)
    return median(times)


def mean_us(operation: Callable[[int], object], *, runs: int = 12, loops: int = 2_000) -> float:
    """Median over `runs` of the mean over so many calls that what happens now and then counts."""
    return median_us(operation, runs=runs, loops=loops)


def context(number: int, queue_ms: float = 12.0) -> PlanContext:
    """A query for three layers of one group."""
    names = ("semantic", "graph", "episodic")
    return PlanContext(
        query=f"query-{number}",
        type="factual",
        wanted=names,
        cached=(),
        missing=tuple(LayerDescriptor(name, "io") for name in names),
        groups={"io": GroupLoad(4, queue_ms)},
    )


def answered(
    selector: AdaptiveStrategySelector, number: int, at_ms: int, queue_ms: float = 12.0
) -> ExecutionTelemetry:
    """The record of a query answered in about 40 ms."""
    asked = context(number, queue_ms)
    layers = [
        LayerOutcome(layer.layer, "parallel", took_ms=20.0 + number % 7, elapsed_ms=40.0, count=10)
        for layer in asked.missing
    ]
    decision = selector.decide(asked)
    return telemetry_of(asked, decision, layers, at_ms=at_ms, total_ms=41.0, success=True)


def selector(mode: Mode) -> AdaptiveStrategySelector:
    """A selector that has learned from 2,000 queries."""
    profiler = LayerProfiler()
    made = AdaptiveStrategySelector(profiler, DependencyGraph(profiler), mode=mode)
    for number in range(2_000):
        made.observe(answered(made, number, number * 10))
    return made


def steady_us(mode: Mode, kinds: int, per_second: int) -> float:
    """A query decided, recorded and learned from, at a steady rate, of so many kinds."""
    made, number = selector(mode), 0

    def one(_: int) -> None:
        nonlocal number
        number += 1
        at_ms = 20_000 + number * 1_000 // per_second
        made.observe(answered(made, number, at_ms, queue_ms=float(number % kinds)))

    for _ in range(4_000):
        one(0)
    return mean_us(one)


def main() -> None:
    contexts = [context(number) for number in range(1_000)]
    rules, learned = selector("rules"), selector("learned")
    records = [answered(learned, number, 20_000 + number) for number in range(1_000)]

    def anew(number: int) -> None:
        learned.cost_model.forget_after(10**9)
        learned.decide(contexts[number % 1_000])

    found = {
        "decision, rules": median_us(lambda n: rules.decide(contexts[n % 1_000])),
        "decision, learned": median_us(lambda n: learned.decide(contexts[n % 1_000])),
        "decision, learned, first after learning": median_us(anew),
        "telemetry record": median_us(
            lambda n: learned.observe(records[n % 1_000]), runs=20_000, loops=1
        ),
        "telemetry record, mean with learning": mean_us(
            lambda n: learned.observe(records[n % 1_000])
        ),
    }
    for kinds, per_second in ((1, 500), (1, 2_000), (16, 2_000)):
        name = f"a query, {kinds} kinds, {per_second:,} a second"
        found[f"{name}, rules"] = steady_us("rules", kinds, per_second)
        found[f"{name}, learned"] = steady_us("learned", kinds, per_second)
    for name, took in found.items():
        target = f"target {TARGETS_US[name]:.0f}" if name in TARGETS_US else ""
        print(f"{name:44}{took:8.2f} us  {target}")


if __name__ == "__main__":
    sys.exit(main())
