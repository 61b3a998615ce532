"""How a query's missing layers are fetched: one after the other, together, or spread out."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, Protocol

from anabranch.contract.plan import Arm, Decision, PlanContext
from anabranch.contract.telemetry import ExecutionTelemetry
from anabranch.learn.cost_model import CostModel
from anabranch.learn.dependency_graph import DependencyGraph, draw
from anabranch.learn.execution_telemetry import ExecutionTelemetryCollector
from anabranch.learn.folding import Fold
from anabranch.learn.name_filter import NameFilter
from anabranch.learn.profiler import PerformanceProfiler
from anabranch.select.plans import ARMS, Plan, Plans, slowest
from anabranch.select.prepared_plans import PreparedPlans
from anabranch.select.reasons import FASTEST, NEXT_BEST, apart, reason

__all__ = ["AdaptiveStrategySelector"]

Mode = Literal["rules", "learned", "shadow"]

EXPLORE: Final = 0.01
"""Share of learned choices that try another arm, so that its cost stays known."""
_TRIED: Final = "it is tried, to know its cost"


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
        mode: `rules` is the original's tree on estimates from real latencies; `learned` takes
            the plan that the cost model expects to be fastest; `shadow` follows the rules and
            records what would have been learned beside it.
        cache_threshold: share of wanted layers in the cache above which the rest may be left
            out, if `min_coverage` allows it.
        parallel_threshold: parallelisation benefit above which layers are asked together.
        parallel_max_layers: most layers that count as simple enough for PARALLEL.
        distributed_threshold: cost in ms, one after the other, above which work is spread.
        explore: share of choices that try an arm at random; by default 0.01 where `learned`
            decides and none where the rules do.
        cost_model: what each arm costs; by default one that starts from the design's formulas.
        instance: this process's name, new with every start: by it batches of telemetry count
            once.
        settings: present values of other settings, for recommendations.
        names, now_ms: as of `ExecutionTelemetryCollector`.
    """

    def __init__(
        self,
        profiler: PerformanceProfiler,
        dep_graph: DependencyGraph,
        cache: HitRate | None = None,
        *,
        mode: Mode = "rules",
        cache_threshold: float = 0.75,
        parallel_threshold: float = 1.5,
        parallel_max_layers: int = 4,
        distributed_threshold: float = 500.0,
        explore: float | None = None,
        cost_model: CostModel | None = None,
        instance: str = "",
        settings: Mapping[str, Any] | None = None,
        names: NameFilter | None = None,
        now_ms: Callable[[], float] | None = None,
    ) -> None:
        self.mode = mode
        self.cost_model = cost_model if cost_model is not None else CostModel()
        folds = [fold for fold in (profiler, dep_graph, self.cost_model) if isinstance(fold, Fold)]
        self.telemetry = ExecutionTelemetryCollector(
            instance,
            folds,
            settings={
                **(settings if settings is not None else {}),
                "select.mode": mode,
                "select.distributed_threshold": distributed_threshold,
            },
            names=names,
            now_ms=now_ms,
        )
        self._prepared = PreparedPlans(profiler, dep_graph, self.cost_model)
        self._graph = dep_graph
        self._cache = cache
        self._cache_threshold = cache_threshold
        self._parallel_threshold = parallel_threshold
        self._parallel_max_layers = parallel_max_layers
        self._distributed_threshold = distributed_threshold
        self._explore = (EXPLORE if mode == "learned" else 0.0) if explore is None else explore

    def decide(self, context: PlanContext) -> Decision:
        """Plan the missing layers of a query whose cache was probed.

        A pure function of what was learned and of `context`.
        """
        if not context.missing:
            return _from_cache(f"all {len(context.cached)} wanted layers are cached and fresh")
        if context.strategy == "cache":
            return _from_cache(f"cache was asked for: {_missing(context)} left out", 0.5)
        if context.strategy != "auto":
            return self._usual(self._prepared.of(context), 0)
        if self.mode != "learned" and (decision := self._enough_cached(context)) is not None:
            return decision
        return self._explored(context, self._prepared.of(context))

    def observe(self, record: ExecutionTelemetry) -> None:
        """Learn from an answered query."""
        self.telemetry.record(record)

    def stats(self) -> dict[str, float]:
        """How far each arm's estimates can be trusted, and how often the cache answers."""
        found = {f"accuracy.{arm}": self.cost_model.accuracy(arm) for arm in ARMS}
        if self._cache is not None:
            found["cache.hit_rate"] = self._cache.hit_rate
        return found

    def _enough_cached(self, context: PlanContext) -> Decision | None:
        """By the original's rule: to leave the rest out, if so much is cached."""
        share = len(context.cached) / max(1, len(context.wanted))
        if share <= self._cache_threshold or share < context.min_coverage:
            return None
        cached, least = apart(100 * share, 100 * self._cache_threshold)
        what = f"{cached}% of the layers are cached, over {least}%"
        return _from_cache(f"{what}: {_missing(context)} left out", share)

    def _explored(self, context: PlanContext, plans: Plans) -> Decision:
        """The plan that is best, or for a small share of queries whichever arm their id draws.

        Only plans that can start, and are expected within the deadline, are tried.
        """
        share = self._explore
        count = bisect_right(plans.costs, context.remaining_ms) if share > 0 else 0
        if count and (number := draw(context.query, 3)) < share:
            tried = plans.cheapest(count)
            plan = tried[int(number / share * count)]
            if plan != self._best(plans)[0]:
                probability = share * tried.count(plan) / count
                return self._decision(plans, plan, _TRIED, probability, explored=True)
        return self._usual(plans, count)

    def _usual(self, plans: Plans, count: int) -> Decision:
        """For the best plan, where that many might be tried in its place."""
        decision = plans.decisions.get(count)
        if decision is None:
            best, why = self._best(plans)
            probability = 1.0
            if count:
                share = self._explore
                probability = share * plans.cheapest(count).count(best) / count + (1 - share)
            decision = plans.decisions[count] = self._decision(plans, best, why, probability)
        return decision

    def _best(self, plans: Plans) -> tuple[Plan, str]:
        """The plan to be taken, and why."""
        if plans.best is None:
            plans.best = self._choose(plans)
        return plans.best

    def _choose(self, plans: Plans) -> tuple[Plan, str]:
        if plans.strategy != "auto" and plans.strategy != "cache":
            return plans.by_arm[plans.strategy], "it was asked for"
        if self.mode == "learned":
            best, why = plans.fastest(), FASTEST
        else:
            arm, why = self._tree(plans)
            best = plans.by_arm[arm]
        if plans.stuck and best == plans.by_arm["sequential"]:
            return plans.fastest_together(), NEXT_BEST
        return best, why

    def _tree(self, plans: Plans) -> tuple[Arm, str]:
        """The original's tree for what is not in the cache."""
        names = list(plans.latency)
        benefit = self._graph.get_parallelization_benefit(names)
        gain, least = apart(benefit, self._parallel_threshold, decimals=1)
        why = f"together they gain {gain}x, not over {least}x"
        if benefit > self._parallel_threshold:
            if len(names) <= self._parallel_max_layers:
                return "parallel", f"together they gain {gain}x, over {least}x"
            why = f"{len(names)} layers are more than {self._parallel_max_layers}"
        cost_ms = sum(plans.latency.values())
        cost, limit = apart(cost_ms, self._distributed_threshold)
        if cost_ms > self._distributed_threshold:
            return "distributed", f"they cost {cost} ms, over {limit}"
        return "sequential", f"they cost {cost} ms, not over {limit}, and {why}"

    def _decision(
        self, plans: Plans, plan: Plan, why: str, probability: float, *, explored: bool = False
    ) -> Decision:
        longest = slowest(plan)
        arm: Arm = longest.arm
        shadow = slowest(plans.fastest()) if self._is_shadowed(plans) else None
        return Decision(
            strategy=arm,
            arms=plans.arms(plan),
            order=plans.order,
            confidence=self.cost_model.accuracy(arm),
            reason=reason(plans, plan, why),
            estimated_ms=longest.estimated_ms,
            estimates=plans.estimates,
            probability=probability,
            parts=plan,
            explored=explored,
            shadow=shadow.arm if shadow else None,
            shadow_ms=shadow.estimated_ms if shadow else None,
        )

    def _is_shadowed(self, plans: Plans) -> bool:
        return self.mode == "shadow" and plans.strategy == "auto"


def _from_cache(reason: str, confidence: float = 1.0) -> Decision:
    return Decision("cache", {}, (), confidence, reason, 0.0, {})


def _missing(context: PlanContext) -> str:
    return ", ".join(layer.layer for layer in context.missing)
