"""What a strategy selector is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import Meta, Struct

from anabranch.contract import bounds
from anabranch.contract.events import LayerDescriptor, Strategy

__all__ = ["Arm", "Decision", "GroupLoad", "PlanContext", "PlanPart"]

Arm = Literal["sequential", "parallel", "distributed"]
"""A way to fetch what the cache does not have."""


class GroupLoad(Struct, frozen=True, gc=False):
    """How busy a worker group is. `queue_ms` is the expected wait before a task starts.

    No workers: none was heard of lately; tasks wait in their topic until one comes.
    """

    workers: bounds.Count = 1
    queue_ms: bounds.Millis = 0.0


class PlanContext(Struct, frozen=True, gc=False):
    """Everything a decision depends on, after the cache was probed."""

    query: bounds.QueryId
    type: bounds.TypeName
    wanted: bounds.LayerNames
    cached: bounds.LayerNames
    missing: Annotated[tuple[LayerDescriptor, ...], Meta(max_length=bounds.MAX_LAYERS)]
    """Layers to be fetched; all have a descriptor."""
    groups: Annotated[Mapping[bounds.GroupName, GroupLoad], Meta(max_length=bounds.MAX_LAYERS)]
    strategy: Literal["auto", "cache", "sequential", "parallel", "distributed"] = "auto"
    min_coverage: bounds.Fraction = 1.0
    remaining_ms: bounds.Shift = 1000.0


class PlanPart(Struct, frozen=True, gc=False):
    """One arm of a plan, with what was expected of it: learning compares it with what came.

    Attributes:
        group: the worker group; empty for SEQUENTIAL, which is one part over all groups.
        layers: names, sorted.
        load: level of the group's queue (`cost_model.load_level`).
        formula_ms: the cost formula's estimate, before what was learned.
        estimated_ms: the estimate.
        novel: the query's type had hardly been seen before.
    """

    group: bounds.MemberGroup
    arm: Arm
    layers: bounds.LayerNames
    load: bounds.Count
    formula_ms: bounds.Millis
    estimated_ms: bounds.Millis
    novel: bool = False


class Decision(Struct, frozen=True, gc=False):
    """A plan for the missing layers: SEQUENTIAL as a whole, or one arm per worker group.

    Attributes:
        strategy: what the answer names: cache if nothing is sent, else the arm of the group
            with the largest estimate.
        arms: arm by worker group; empty if strategy is cache. SEQUENTIAL names every group.
        order: missing layers, cheapest first (the order in which SEQUENTIAL asks).
        confidence: 0..1.
        reason: one sentence with its numbers.
        estimated_ms: for the chosen plan.
        estimates: estimate in milliseconds for each arm that was considered.
        probability: of this choice, given the context (1.0 unless the choice explores).
        parts: the plan's arms with their estimates, for `ExecutionTelemetry`.
        explored: the choice was made to learn, not because it looked best.
        shadow: the strategy that the learned model would have taken, in `shadow` mode.
        shadow_ms: its estimate.
    """

    strategy: Strategy
    arms: Mapping[str, Arm]
    order: tuple[str, ...]
    confidence: float
    reason: str
    estimated_ms: float
    estimates: Mapping[Arm, float]
    probability: float = 1.0
    parts: tuple[PlanPart, ...] = ()
    explored: bool = False
    shadow: Strategy | None = None
    shadow_ms: float | None = None
