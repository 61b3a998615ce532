"""Plans for a query's missing layers, each with its expected cost."""

from __future__ import annotations

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
        lone: groups with a lone worker.
    """

    __slots__ = ("_costs", "_novel", "by_arm", "latency", "lone")

    def __init__(
        self, context: PlanContext, profiler: PerformanceProfiler, costs: CostModel, *, novel: bool
    ) -> None:
        self._costs = costs
        self._novel = novel
        self.latency: dict[str, float] = {}
        self.lone: list[str] = []
        groups: dict[str, list[str]] = {}
        for layer in context.missing:
            self.latency[layer.layer] = profiler.latency_ms(layer.layer)
            groups.setdefault(layer.group, []).append(layer.layer)
        self.by_arm: dict[Arm, Plan] = {"sequential": self._alone(context, groups)}
        parallel, distributed = [], []
        for group, names in groups.items():
            load = context.groups.get(group, IDLE)
            part = self._part("parallel", group, names, load.queue_ms)
            parallel.append(part)
            if load.workers > 1:
                part = self._part("distributed", group, names, load.queue_ms)
            else:
                self.lone.append(group)
            distributed.append(part)
        self.by_arm["parallel"] = tuple(parallel)
        self.by_arm["distributed"] = tuple(distributed)

    @property
    def order(self) -> tuple[str, ...]:
        """Missing layers, cheapest first."""
        return tuple(sorted(self.latency, key=self.latency.__getitem__))

    def best(self) -> Plan:
        """The cheaper arm in each group, or SEQUENTIAL if that is cheaper than the dearest."""
        risk = self._costs.risk
        alone, parallel, distributed = self.by_arm.values()
        spread, together = risk("distributed"), risk("parallel")
        plan = tuple(
            b if b.estimated_ms * spread < a.estimated_ms * together else a
            for a, b in zip(parallel, distributed, strict=True)
        )
        longest = max(part.estimated_ms * risk(part.arm) for part in plan)
        return alone if alone[0].estimated_ms * risk("sequential") <= longest else plan

    def _part(self, arm: Arm, group: str, names: list[str], queue_ms: float) -> PlanPart:
        layers = tuple(sorted(names))
        latencies = [self.latency[name] for name in layers]
        return self._costs.part(arm, layers, latencies, queue_ms, group=group, novel=self._novel)

    def _alone(self, context: PlanContext, groups: dict[str, list[str]]) -> Plan:
        waits = sum(
            context.groups.get(group, IDLE).queue_ms * len(names) for group, names in groups.items()
        )
        return (self._part("sequential", "", list(self.latency), waits / len(self.latency)),)


def cost_ms(plan: Plan) -> float:
    """Expected milliseconds until the last part is there."""
    return plan[0].estimated_ms if len(plan) == 1 else slowest(plan).estimated_ms


def slowest(plan: Plan) -> PlanPart:
    """The part with the largest estimate: the answer names its arm."""
    return max(plan, key=lambda part: part.estimated_ms)
