"""Plans that were computed for one query serve the next that asks the same of the same."""

from __future__ import annotations

from typing import Any, Final

from anabranch.contract.plan import PlanContext
from anabranch.learn.cost_model import CostModel
from anabranch.learn.dependency_graph import DependencyGraph
from anabranch.learn.profiler import PerformanceProfiler
from anabranch.select.plans import Plans

__all__ = ["PreparedPlans"]

MAX_PREPARED: Final = 1_024
"""Of more kinds of queries none is kept."""


class PreparedPlans:
    """Plans by what they depend on of a query, until something is learned."""

    def __init__(
        self, profiler: PerformanceProfiler, dep_graph: DependencyGraph, costs: CostModel
    ) -> None:
        self._profiler = profiler
        self._graph = dep_graph
        self._costs = costs
        self._plans: dict[tuple[Any, ...], Plans] = {}
        self._revision = -1

    def of(self, context: PlanContext) -> Plans:
        """The plans that a query can have."""
        revision = self._profiler.revision + self._graph.revision + self._costs.revision
        if revision != self._revision or len(self._plans) >= MAX_PREPARED:
            self._plans.clear()
            self._revision = revision
        novel = not self._graph.knows_type(context.type)
        key = novel, context.strategy, context.missing, *context.groups.items()
        plans = self._plans.get(key)
        if plans is None:
            plans = self._plans[key] = Plans(context, self._profiler, self._costs, novel=novel)
        return plans
