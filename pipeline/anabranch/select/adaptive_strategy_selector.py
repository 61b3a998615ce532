"""How a query's missing layers are fetched: one after the other, together, or spread out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, Protocol

from msgspec.structs import replace

from anabranch.contract.plan import Arm, Decision, PlanContext
from anabranch.contract.telemetry import ExecutionTelemetry
from anabranch.learn.cost_model import CostModel
from anabranch.learn.dependency_graph import DependencyGraph, draw
from anabranch.learn.execution_telemetry import ExecutionTelemetryCollector
from anabranch.learn.folding import Fold
from anabranch.learn.name_filter import NameFilter
from anabranch.learn.profiler import PerformanceProfiler
from anabranch.select.plans import ARMS, Plan, Plans, slowest

__all__ = ["AdaptiveStrategySelector"]

Mode = Literal["rules", "learned", "shadow"]

EXPLORE: Final = 0.01
"""Share of learned choices that try another arm, so that its cost stays known."""
MAX_DECIMALS: Final = 6
_FASTEST: Final = "it is expected to be fastest"
_NEXT_BEST: Final = "SEQUENTIAL cannot start, and this is next best"


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
        self._profiler = profiler
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
        novel = not self._graph.knows_type(context.type)
        plans = Plans(context, self._profiler, self.cost_model, novel=novel)
        if context.strategy != "auto":
            return self._decision(plans, plans.by_arm[context.strategy], "it was asked for")
        if self.mode == "learned":
            return self._explored(context, plans, plans.best(), _FASTEST)
        return self._ruled(context, plans)

    def observe(self, record: ExecutionTelemetry) -> None:
        """Learn from an answered query."""
        self.telemetry.record(record)

    def stats(self) -> dict[str, float]:
        """How far each arm's estimates can be trusted, and how often the cache answers."""
        found = {f"accuracy.{arm}": self.cost_model.accuracy(arm) for arm in ARMS}
        if self._cache is not None:
            found["cache.hit_rate"] = self._cache.hit_rate
        return found

    def _ruled(self, context: PlanContext, plans: Plans) -> Decision:
        share = len(context.cached) / max(1, len(context.wanted))
        if share > self._cache_threshold and share >= context.min_coverage:
            cached, least = apart(100 * share, 100 * self._cache_threshold)
            what = f"{cached}% of the layers are cached, over {least}%"
            return _from_cache(f"{what}: {_missing(context)} left out", share)
        arm, why = self._tree(plans)
        decision = self._explored(context, plans, plans.by_arm[arm], why)
        if self.mode == "rules":
            return decision
        best = slowest(plans.best())
        return replace(decision, shadow=best.arm, shadow_ms=best.estimated_ms)

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

    def _explored(self, context: PlanContext, plans: Plans, best: Plan, why: str) -> Decision:
        """`best`, or for a small share of queries whichever arm their id draws.

        Only plans that can start, and are expected within the deadline, are tried.
        """
        if plans.stuck and best == plans.by_arm["sequential"]:
            best, why = plans.best_together(), _NEXT_BEST
        share = self._explore
        if share <= 0:
            return self._decision(plans, best, why)
        costs, limit = plans.estimates, context.remaining_ms
        arms = ARMS[1:] if plans.stuck else ARMS
        tried = [plans.by_arm[arm] for arm in arms if costs[arm] <= limit]
        if not tried:
            return self._decision(plans, best, why)
        number = draw(context.query, 3)
        plan = tried[int(number / share * len(tried))] if number < share else best
        probability = share * tried.count(plan) / len(tried) + (1 - share) * (plan == best)
        if plan == best:
            return self._decision(plans, best, why, probability)
        return self._decision(plans, plan, "it is tried, to know its cost", probability, True)

    def _decision(
        self, plans: Plans, plan: Plan, why: str, probability: float = 1.0, explored: bool = False
    ) -> Decision:
        longest = slowest(plan)
        arm: Arm = longest.arm
        arms: dict[str, Arm]
        estimates = plans.estimates
        if arm == "sequential":
            arms = dict.fromkeys((part.group for part in plans.by_arm["parallel"]), arm)
        else:
            arms = {part.group: part.arm for part in plan}
        return Decision(
            strategy=arm,
            arms=arms,
            order=plans.order,
            confidence=self.cost_model.accuracy(arm),
            reason=_reason(plans, plan, why),
            estimated_ms=longest.estimated_ms,
            estimates=estimates,
            probability=probability,
            parts=plan,
            explored=explored,
        )


def _from_cache(reason: str, confidence: float = 1.0) -> Decision:
    return Decision("cache", {}, (), confidence, reason, 0.0, {})


def _missing(context: PlanContext) -> str:
    return ", ".join(layer.layer for layer in context.missing)


def _reason(plans: Plans, plan: Plan, why: str) -> str:
    """One sentence, with the numbers that were compared."""
    what = " and ".join(
        [f"{part.arm} for {', '.join(part.layers)} ({part.estimated_ms:.0f} ms)" for part in plan]
    )
    workers = [f"{group} has {'one' if n else 'no'} worker" for group, n in plans.workers.items()]
    return f"{what}: {why} ({'; '.join([_numbers(plans, plan, why), *workers])})"


def _numbers(plans: Plans, plan: Plan, why: str) -> str:
    """Estimates; where plans were compared, dearer for arms whose estimates err more than its."""
    costs = list(plans.estimates.values())
    if why in (_FASTEST, _NEXT_BEST):
        scale, compared = plans.risk(plan), list(plans.by_arm.values())
        if plan not in compared:
            compared.append(plan)
        costs = [plans.weighed_ms(known) / scale for known in compared]
    alone, together, spread, *others = apart(*costs)
    this = "".join([f", this {ms}" for ms in others])
    return f"expected ms: sequential {alone}, parallel {together}, distributed {spread}{this}"


def apart(*numbers: float, decimals: int = 0) -> list[str]:
    """Numbers as text, with as many decimals as it takes to tell different ones apart."""
    for places in range(decimals, MAX_DECIMALS + 1):
        form = f".{places}f"
        texts = [format(number, form) for number in numbers]
        distinct = len(set(texts))
        if distinct == len(texts) or distinct == len(set(numbers)):
            break
    return texts
