"""Records and contexts for the tests of learning and selection, and a stable to learn them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from anabranch.contract.events import LayerDescriptor, Source
from anabranch.contract.plan import Arm, GroupLoad, PlanContext, PlanPart
from anabranch.contract.telemetry import ExecutionTelemetry, LayerOutcome
from anabranch.learn.dependency_graph import DependencyGraph
from anabranch.learn.execution_telemetry import ExecutionTelemetryCollector
from anabranch.learn.profiler import LayerProfiler
from anabranch.select.adaptive_strategy_selector import AdaptiveStrategySelector

MINUTE_MS = 60_000


def outcome(
    layer: str, source: Source = "parallel", took_ms: float = 40.0, **fields: Any
) -> LayerOutcome:
    """A layer that was asked and answered; from the cache it took no time."""
    if source == "cache":
        return LayerOutcome(layer, "cache", **fields)
    values = {"took_ms": took_ms, "elapsed_ms": took_ms + 3, "count": 5, "used": True, **fields}
    return LayerOutcome(layer, source, **values)


def record(
    took: Mapping[str, float],
    *,
    arm: Arm = "parallel",
    query: str = "q",
    type_: str = "factual",
    at_ms: int = 0,
    estimated_ms: float | None = None,
    formula_ms: float | None = None,
    total_ms: float | None = None,
    cached: Sequence[str] = (),
    unused: Sequence[str] = (),
    load: int = 0,
    novel: bool = False,
    layers_override: Sequence[LayerOutcome] | None = None,
    **fields: Any,
) -> ExecutionTelemetry:
    """An answered query whose layers took so long under `arm`; by default as was estimated."""
    actual = sum(took.values()) if arm == "sequential" else max(took.values(), default=0.0)
    total = actual if total_ms is None else total_ms
    expected = total if estimated_ms is None else estimated_ms
    formula = expected if formula_ms is None else formula_ms
    layers = [
        outcome(name, arm, ms, elapsed_ms=total, used=name not in unused)
        for name, ms in took.items()
    ]
    plan = PlanPart(
        "" if arm == "sequential" else "io",
        arm,
        tuple(sorted(took)),
        load,
        formula,
        expected,
        novel,
    )
    values: dict[str, Any] = {
        "strategy_chosen": arm if took else "cache",
        "strategy_confidence": 0.8,
        "success": True,
        "plan": (plan,) if took else (),
        **fields,
    }
    return ExecutionTelemetry(
        query=query,
        type=type_,
        at_ms=at_ms,
        estimated_latency_ms=expected,
        total_latency_ms=total,
        estimation_error_pct=abs(expected - total) / total * 100 if total else 0.0,
        cache_hit=bool(cached),
        layers=tuple(layers if layers_override is None else layers_override)
        + tuple(LayerOutcome(name, "cache") for name in cached),
        **values,
    )


def context(
    missing: Sequence[str] = ("a", "b"),
    *,
    cached: Sequence[str] = (),
    groups: Mapping[str, str] | None = None,
    loads: Mapping[str, GroupLoad] | None = None,
    query: str = "q",
    type_: str = "factual",
    **fields: Any,
) -> PlanContext:
    """A probed query; its layers are in the group `io` (four idle workers) unless told."""
    where = groups if groups is not None else {}
    return PlanContext(
        query=query,
        type=type_,
        wanted=(*cached, *missing),
        cached=tuple(cached),
        missing=tuple(LayerDescriptor(name, where.get(name, "io")) for name in missing),
        groups=loads if loads is not None else {"io": GroupLoad(4), "cpu": GroupLoad(4)},
        **fields,
    )


class Pupil:
    """Profiler and graph that learn at once what they are taught."""

    def __init__(self, min_samples: int = 5, instance: str = "pupil", **graph: Any) -> None:
        self.profiler = LayerProfiler()
        self.graph = DependencyGraph(self.profiler, min_samples, **graph)
        self.collector = ExecutionTelemetryCollector(instance, (self.profiler, self.graph))

    def teach(self, *records: ExecutionTelemetry, times: int = 1) -> None:
        """Learn from each record, several times."""
        for _ in range(times):
            for one in records:
                self.collector.record(one)
        self.collector.settle()


def teach(selector: AdaptiveStrategySelector, *records: ExecutionTelemetry, times: int = 1) -> None:
    """Let a selector learn from each record, several times."""
    for _ in range(times):
        for one in records:
            selector.observe(one)
    selector.telemetry.settle()
