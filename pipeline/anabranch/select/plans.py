"""Plans for a query's missing layers, each with its expected cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from anabranch.learn.cost_model import CostModel
from anabranch.learn.profiler import PerformanceProfiler
from anabranch.select.decision import Arm, GroupLoad, PlanContext, PlanPart

__all__ = ["ARMS", "Plan", "Plans", "cost_ms", "slowest"]

ARMS: Final[tuple[Arm, ...]] = ("sequential", "parallel", "distributed")
IDLE: Final = GroupLoad()

Plan = tuple[PlanPart, ...]
"""One part per worker group, or a single SEQUENTIAL one over all of them."""


class Plans:
    """The plans that one query can have.

    Attributes:
        latency: milliseconds by missing layer.
        by_arm: everything SEQUENTIAL, everything PARALLEL, and DISTRIBUTED wherever it can
            start: a lone worker would get all the tasks itself, there it is PARALLEL.
        estimates: milliseconds of each of these.
        lone: groups with a lone worker.
    """

    __slots__ = ("_costs", "by_arm", "estimates", "latency", "lone")

    def __init__(
        self, context: PlanContext, profiler: PerformanceProfiler, costs: CostModel, *, novel: bool
    ) -> None:
        self._costs = costs
        latency: dict[str, float] = {}
        self.latency = latency
        groups: dict[str, list[str]] = {}
        for layer in context.missing:
            latency[layer.layer] = profiler.latency_ms(layer.layer)
            groups.setdefault(layer.group, []).append(layer.layer)
        self.lone: list[str] = []
        parallel: list[PlanPart] = []
        distributed: list[PlanPart] = []
        waits = 0.0
        for group, names in groups.items():
            load = context.groups.get(group, IDLE)
            queue_ms = load.queue_ms
            waits += queue_ms * len(names)
            layers = tuple(sorted(names))
            latencies = [latency[name] for name in layers]
            part = costs.part(group, "parallel", layers, latencies, queue_ms, novel)
            parallel.append(part)
            if load.workers > 1:
                part = costs.part(group, "distributed", layers, latencies, queue_ms, novel)
            else:
                self.lone.append(group)
            distributed.append(part)
        if len(groups) > 1:
            layers = tuple(sorted(latency))
            latencies = list(latency.values())
        alone = costs.part("", "sequential", layers, latencies, waits / len(latency), novel)
        self.by_arm: dict[Arm, Plan] = {
            "sequential": (alone,),
            "parallel": tuple(parallel),
            "distributed": tuple(distributed),
        }
        self.estimates: dict[Arm, float] = {
            "sequential": alone.estimated_ms,
            "parallel": cost_ms(parallel),
            "distributed": cost_ms(distributed),
        }

    @property
    def order(self) -> tuple[str, ...]:
        """Missing layers, cheapest first."""
        return tuple(sorted(self.latency, key=self.latency.__getitem__))

    def best(self) -> Plan:
        """The cheaper arm in each group, or SEQUENTIAL if that is cheaper than the dearest."""
        risk = self._costs.risk
        together, spread = risk("parallel"), risk("distributed")
        plan, longest = [], 0.0
        for part, other in zip(self.by_arm["parallel"], self.by_arm["distributed"], strict=True):
            cost = part.estimated_ms * together
            other_cost = other.estimated_ms * spread
            if other is not part and other_cost < cost:
                part, cost = other, other_cost
            plan.append(part)
            longest = max(longest, cost)
        alone = self.by_arm["sequential"]
        return alone if alone[0].estimated_ms * risk("sequential") <= longest else tuple(plan)


def cost_ms(plan: Sequence[PlanPart]) -> float:
    """Expected milliseconds until the last part is there."""
    return slowest(plan).estimated_ms


def slowest(plan: Sequence[PlanPart]) -> PlanPart:
    """The part with the largest estimate: the answer names its arm."""
    return plan[0] if len(plan) == 1 else max(plan, key=lambda part: part.estimated_ms)
