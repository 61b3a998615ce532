"""Plans for a query's missing layers, each with its expected cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from anabranch.contract.plan import Arm, Decision, GroupLoad, PlanContext, PlanPart
from anabranch.learn.cost_model import CostModel
from anabranch.learn.profiler import PerformanceProfiler

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
            start: a lone worker would get all the tasks itself, there it is PARALLEL, unless
            the query insists.
        estimates: milliseconds of each of these.
        workers: by group, where there are too few of them to spread work over.
        stuck: groups without a worker, while others have some: SEQUENTIAL cannot start, for it
            would wait there for what could have been asked elsewhere.
        costs: estimates of those that can start, smallest first.
        strategy: what the query asks for.
        best: the plan to be taken and why, once the selector chose it.
        decisions: for it, by how many plans may be tried in its place.
    """

    __slots__ = (
        "_model", "best", "by_arm", "costs", "decisions", "estimates", "latency", "strategy",
        "stuck", "workers",
    )  # fmt: skip

    def __init__(
        self, context: PlanContext, profiler: PerformanceProfiler, model: CostModel, *, novel: bool
    ) -> None:
        self._model = model
        self.strategy = context.strategy
        self.latency: dict[str, float] = {}
        self.workers: dict[str, int] = {}
        groups: dict[str, list[str]] = {}
        for layer in context.missing:
            self.latency[layer.layer] = profiler.latency_ms(layer.layer)
            groups.setdefault(layer.group, []).append(layer.layer)
        least = 1 if context.strategy == "distributed" else 2
        parallel, distributed = self._by_group(groups, context.groups, novel, least)
        self.stuck: list[str] = []
        if self.workers and len(groups) > 1:
            empty = [group for group, workers in self.workers.items() if not workers]
            self.stuck = empty if len(empty) < len(groups) else []
        alone = self._alone(groups, context.groups, novel)
        self.by_arm: dict[Arm, Plan] = {
            "sequential": (alone,),
            "parallel": parallel,
            "distributed": distributed,
        }
        self.estimates: dict[Arm, float] = {
            "sequential": alone.estimated_ms,
            "parallel": cost_ms(parallel),
            "distributed": cost_ms(distributed),
        }
        self.costs = sorted([self.estimates[arm] for arm in self._startable])
        self.best: tuple[Plan, str] | None = None
        self.decisions: dict[int, Decision] = {}

    def _by_group(
        self,
        groups: dict[str, list[str]],
        loads: Mapping[str, GroupLoad],
        novel: bool,
        least_workers: int,
    ) -> tuple[Plan, Plan]:
        parallel: list[PlanPart] = []
        distributed: list[PlanPart] = []
        for group, names in groups.items():
            load = loads.get(group, IDLE)
            layers = tuple(sorted(names))
            latencies = [self.latency[name] for name in layers]
            part = self._model.part(group, "parallel", layers, latencies, load.queue_ms, novel)
            parallel.append(part)
            if load.workers >= least_workers:
                part = self._model.part(
                    group, "distributed", layers, latencies, load.queue_ms, novel
                )
            else:
                self.workers[group] = load.workers
            distributed.append(part)
        return tuple(parallel), tuple(distributed)

    def _alone(
        self, groups: dict[str, list[str]], loads: Mapping[str, GroupLoad], novel: bool
    ) -> PlanPart:
        waits = sum([loads.get(group, IDLE).queue_ms * len(groups[group]) for group in groups])
        layers, latencies = tuple(sorted(self.latency)), list(self.latency.values())
        wait = waits / len(layers)
        return self._model.part("", "sequential", layers, latencies, wait, novel)

    @property
    def order(self) -> tuple[str, ...]:
        """Missing layers, cheapest first."""
        return tuple(sorted(self.latency, key=self.latency.__getitem__))

    def arms(self, plan: Plan) -> dict[str, Arm]:
        """Arm by worker group; SEQUENTIAL names every group."""
        if plan[0].arm == "sequential":
            return dict.fromkeys([part.group for part in self.by_arm["parallel"]], "sequential")
        return {part.group: part.arm for part in plan}

    def cheapest(self, count: int) -> list[Plan]:
        """So many of those that can start, whose estimates are `costs`."""
        limit = self.costs[count - 1]
        return [self.by_arm[arm] for arm in self._startable if self.estimates[arm] <= limit]

    def fastest(self) -> Plan:
        """The cheaper arm in each group, or SEQUENTIAL if that is cheaper than the dearest."""
        plan = self.fastest_together()
        alone = self.by_arm["sequential"]
        return alone if self.weighed_ms(alone) <= self.weighed_ms(plan) else plan

    def fastest_together(self) -> Plan:
        """The cheaper arm in each group, all groups at once."""
        together, apart = self.by_arm["parallel"], self.by_arm["distributed"]
        if len(together) == 1:
            return together if self.weighed_ms(together) <= self.weighed_ms(apart) else apart
        return tuple(min(pair, key=self._weighed_ms) for pair in zip(together, apart, strict=True))

    def weighed_ms(self, plan: Plan) -> float:
        """What plans are compared by: milliseconds, raised where an arm's estimates are poor."""
        return self._weighed_ms(plan[0]) if len(plan) == 1 else max(map(self._weighed_ms, plan))

    def risk(self, plan: Plan) -> float:
        """By what the estimate of the part that decides a plan's cost is raised."""
        dearest = plan[0] if len(plan) == 1 else max(plan, key=self._weighed_ms)
        return self._model.risk(dearest.arm)

    @property
    def _startable(self) -> tuple[Arm, ...]:
        return ARMS[1:] if self.stuck else ARMS

    def _weighed_ms(self, part: PlanPart) -> float:
        return part.estimated_ms * self._model.risk(part.arm)


def cost_ms(plan: Sequence[PlanPart]) -> float:
    """Expected milliseconds until the last part is there."""
    return slowest(plan).estimated_ms


def slowest(plan: Sequence[PlanPart]) -> PlanPart:
    """The part with the largest estimate: the answer names its arm."""
    return plan[0] if len(plan) == 1 else max(plan, key=lambda part: part.estimated_ms)
