"""How a query's missing layers are fetched: one after the other, together, or spread out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal, Protocol

from anabranch.learn.cost_model import CostModel, Estimate
from anabranch.learn.dependency_graph import DependencyGraph
from anabranch.learn.execution_telemetry import ExecutionTelemetry, ExecutionTelemetryCollector
from anabranch.learn.profiler import PerformanceProfiler
from anabranch.learn.rows import Fold
from anabranch.select.decision import Arm, Decision, PlanContext, PlanPart

__all__ = ["AdaptiveStrategySelector"]

FALLBACK: Final[Mapping[Arm, Arm]] = {
    "distributed": "parallel",
    "parallel": "sequential",
    "sequential": "parallel",
}


class HitRate(Protocol):
    """What the selector wants to know of a cache."""

    @property
    def hit_rate(self) -> float:
        """Share of lookups answered from it, 0..1."""
        ...


class AdaptiveStrategySelector:
    """Chooses a plan for what the cache does not have.

    Args:
        profiler: latencies of single layers.
        dep_graph: what asking layers together gains.
        cache: for its hit rate, in the statistics.
        mode: `rules` is the original's tree, on estimates from real latencies.
        cache_threshold: share of wanted layers in the cache above which the rest may be left
            out, if `min_coverage` allows it.
        parallel_threshold: parallelisation benefit above which layers are asked together.
        parallel_max_layers: most layers that count as simple enough for PARALLEL.
        distributed_threshold: cost in ms, one after the other, above which work is spread.
    """

    def __init__(
        self,
        profiler: PerformanceProfiler,
        dep_graph: DependencyGraph,
        cache: HitRate | None = None,
        *,
        mode: Literal["rules", "learned", "shadow"] = "rules",
        cache_threshold: float = 0.75,
        parallel_threshold: float = 1.5,
        parallel_max_layers: int = 4,
        distributed_threshold: float = 500.0,
    ) -> None:
        self.mode = mode
        self.cost_model = CostModel(profiler)
        folds = [fold for fold in (profiler, dep_graph, self.cost_model) if isinstance(fold, Fold)]
        self.telemetry = ExecutionTelemetryCollector(folds=folds)
        self._profiler = profiler
        self._graph = dep_graph
        self._cache = cache
        self._cache_threshold = cache_threshold
        self._parallel_threshold = parallel_threshold
        self._parallel_max_layers = parallel_max_layers
        self._distributed_threshold = distributed_threshold

    def decide(self, context: PlanContext) -> Decision:
        """Plan the missing layers of a query whose cache was probed."""
        if not context.missing:
            return _from_cache(f"all {len(context.cached)} wanted layers are cached and fresh")
        if context.strategy == "cache":
            return _from_cache(f"cache was asked for: {_missing(context)} left out", 0.5)
        if context.strategy != "auto":
            return self._plan(context, context.strategy, "it was asked for")
        return self._rules(context)

    def observe(self, record: ExecutionTelemetry) -> None:
        """Learn from an answered query."""
        self.telemetry.record(record)

    def _rules(self, context: PlanContext) -> Decision:
        """The original's tree: cache, then parallel, then distributed, else sequential."""
        share = len(context.cached) / max(1, len(context.wanted))
        if share > self._cache_threshold and share >= context.min_coverage:
            return _from_cache(
                f"{share:.0%} of the layers are cached: {_missing(context)} left out"
            )
        names = [layer.layer for layer in context.missing]
        benefit = self._graph.get_parallelization_benefit(names)
        if benefit > self._parallel_threshold and len(names) <= self._parallel_max_layers:
            return self._plan(
                context,
                "parallel",
                f"together they gain {benefit:.1f}x, over {self._parallel_threshold:.1f}x",
            )
        cost = sum(self._profiler.latency_ms(name) for name in names)
        limit = self._distributed_threshold
        if cost > limit:
            return self._plan(context, "distributed", f"cost is {cost:.0f} ms, over {limit:.0f}")
        why = f"cost is {cost:.0f} ms and the gain {benefit:.1f}x"
        return self._plan(context, "sequential", why)

    def _plan(self, context: PlanContext, wish: Arm, why: str) -> Decision:
        parts = (
            (self._sequential(context),)
            if wish == "sequential"
            else tuple(self._part(context, group, wish) for group in _groups(context))
        )
        return self._decision(context, parts, why)

    def _part(self, context: PlanContext, group: str, wish: Arm) -> PlanPart:
        """`wish` for one group, or what is taken when it cannot start there."""
        arm = "parallel" if wish == "distributed" and _workers(context, group) == 1 else wish
        names = sorted(layer.layer for layer in context.missing if layer.group == group)
        return _as_part(group, names, self.cost_model.estimate(arm, names, _queue(context, group)))

    def _sequential(self, context: PlanContext) -> PlanPart:
        names = sorted(layer.layer for layer in context.missing)
        waits = [_queue(context, layer.group) for layer in context.missing]
        estimate = self.cost_model.estimate("sequential", names, sum(waits) / len(waits))
        return _as_part("", names, estimate)

    def _decision(self, context: PlanContext, parts: Sequence[PlanPart], why: str) -> Decision:
        longest = max(parts, key=lambda part: part.estimated_ms)
        arm = longest.arm
        arms = {part.group: part.arm for part in parts}
        if arm == "sequential":
            arms = dict.fromkeys(_groups(context), arm)
        names = ", ".join(part for part in _cheapest_first(context, self._profiler))
        return Decision(
            strategy=arm,
            arms=arms,
            order=tuple(_cheapest_first(context, self._profiler)),
            confidence=self.cost_model.accuracy(arm),
            reason=f"{arm} for {names}: {why}; {longest.estimated_ms:.0f} ms expected",
            estimated_ms=longest.estimated_ms,
            estimates={arm: longest.estimated_ms},
            fallback=FALLBACK[arm],
            parts=tuple(parts),
        )


def _from_cache(reason: str, confidence: float = 1.0) -> Decision:
    return Decision("cache", {}, (), confidence, reason, 0.0, {})


def _missing(context: PlanContext) -> str:
    return ", ".join(layer.layer for layer in context.missing)


def _groups(context: PlanContext) -> list[str]:
    return list(dict.fromkeys(layer.group for layer in context.missing))


def _workers(context: PlanContext, group: str) -> int:
    load = context.groups.get(group)
    return load.workers if load is not None else 1


def _queue(context: PlanContext, group: str) -> float:
    load = context.groups.get(group)
    return load.queue_ms if load is not None else 0.0


def _as_part(group: str, names: Sequence[str], estimate: Estimate) -> PlanPart:
    return PlanPart(
        group, estimate.arm, tuple(names), estimate.load, estimate.formula_ms, estimate.ms
    )


def _cheapest_first(context: PlanContext, profiler: PerformanceProfiler) -> list[str]:
    return sorted(
        (layer.layer for layer in context.missing), key=lambda name: profiler.latency_ms(name)
    )
