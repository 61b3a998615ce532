"""What a decision and a telemetry record cost, each as the median of many runs.

python benchmarks/selection_micro.py
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from statistics import median
from time import perf_counter

from anabranch.contract.events import LayerDescriptor
from anabranch.contract.plan import GroupLoad, PlanContext
from anabranch.contract.telemetry import ExecutionTelemetry, LayerOutcome, telemetry_of
from anabranch.learn.dependency_graph import DependencyGraph
from anabranch.learn.profiler import LayerProfiler
from anabranch.select.adaptive_strategy_selector import AdaptiveStrategySelector, Mode

TARGETS_US = {"decision, learned": 10.0, "telemetry record": 2.0}


def median_us(operation: Callable[[int], object], *, runs: int = 2_000, loops: int = 32) -> float:
    """Median over `runs` of the mean time of `loops` calls, in microseconds."""
    times = []
    for run in range(runs):
        start = perf_counter()
        for loop in range(loops):
            operation(run * loops + loop)
        times.append((perf_counter() - start) / loops * 1e6)
    return median(times)


def context(number: int) -> PlanContext:
    """A query for three layers of one group."""
    names = ("semantic", "graph", "episodic")
    return PlanContext(
        query=f"query-{number}",
        type="factual",
        wanted=names,
        cached=(),
        missing=tuple(LayerDescriptor(name, "io") for name in names),
        groups={"io": GroupLoad(4, 12.0)},
    )


def answered(selector: AdaptiveStrategySelector, number: int, at_ms: int) -> ExecutionTelemetry:
    """The record of a query answered in about 40 ms."""
    asked = context(number)
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


def main() -> None:
    contexts = [context(number) for number in range(1_000)]
    rules, learned = selector("rules"), selector("learned")
    records = [answered(learned, number, 20_000 + number) for number in range(1_000)]
    found = {
        "decision, rules": median_us(lambda n: rules.decide(contexts[n % 1_000])),
        "decision, learned": median_us(lambda n: learned.decide(contexts[n % 1_000])),
        "telemetry record": median_us(
            lambda n: learned.observe(records[n % 1_000]), runs=20_000, loops=1
        ),
        "telemetry record, mean with learning": median_us(
            lambda n: learned.observe(records[n % 1_000])
        ),
    }
    for name, took in found.items():
        target = f"target {TARGETS_US[name]:.0f}" if name in TARGETS_US else ""
        print(f"{name:40}{took:8.2f} us  {target}")


if __name__ == "__main__":
    sys.exit(main())
