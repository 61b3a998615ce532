"""Rows of sums: what an instance says about a second of its work, and what is folded.

Integers throughout (microseconds, thousandths of a natural logarithm), because integer sums
commute exactly. The rows are part of the telemetry record's public schema.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from anabranch.contract import bounds
from anabranch.contract.events import Strategy
from anabranch.contract.plan import Arm

__all__ = ["LayerSum", "PlanSum", "QuerySum", "Rows"]


class LayerSum(Struct, frozen=True, gc=False, omit_defaults=True):
    """How one layer did for one type under one arm within a bucket.

    Attributes:
        bucket: time of the answers, in units of `BUCKET_MS` since the epoch.
        asked: requests that came to an end of their own: answered, failed or timed out.
        timed: requests whose time is known (answered or timed out).
        took_ln: sum of ln(microseconds in the layer, without the queue), in thousandths.
        used: answers that contributed an item to the joined answer.
        refreshed: answers that replaced an older one in the cache.
        changed: of these, those with other content.
    """

    bucket: bounds.Count
    type: bounds.TypeName
    arm: Arm
    layer: bounds.LayerName
    asked: bounds.Count = 0
    ok: bounds.Count = 0
    timed: bounds.Count = 0
    took_ln: bounds.Count = 0
    items: bounds.Count = 0
    used: bounds.Count = 0
    refreshed: bounds.Count = 0
    changed: bounds.Count = 0


class PlanSum(Struct, frozen=True, gc=False, omit_defaults=True):
    """How one part of a plan did: an arm for the layers of one group (or of all, SEQUENTIAL).

    Attributes:
        layers: names, sorted.
        load: level of the group's queue when it was planned (`cost_model.load_level`).
        novel: the type had hardly been seen before.
        count: plans.
        residual: sum of ln(actual / formula), in thousandths.
        error: sum of |ln(actual / estimate)|, in thousandths.
        elapsed_us: sum of the time from dispatch to the last of the layers.
    """

    bucket: bounds.Count
    type: bounds.TypeName
    arm: Arm
    layers: bounds.LayerNames
    load: bounds.Count
    novel: bool
    count: bounds.Count = 0
    residual: bounds.Signed = 0
    error: bounds.Count = 0
    elapsed_us: bounds.Count = 0


class QuerySum(Struct, frozen=True, gc=False, omit_defaults=True):
    """How queries of one type, answered by one strategy, did.

    Attributes:
        layers: the wanted layers, sorted.
        ok: answers that were `complete`.
        cached: wanted layers that came from the cache.
        total_us: sum of the time from query to answer.
        queue_us: sum of the longest wait in a worker's queue.
        hedges: attempts beyond the first.
        explored: answers of which the plan was chosen to learn.
        shadow: plans that the learned model would have made otherwise, in `shadow` mode.
        shadow_gain_us: what it expected to gain by them.
    """

    bucket: bounds.Count
    type: bounds.TypeName
    strategy: Strategy
    layers: bounds.LayerNames
    count: bounds.Count = 0
    ok: bounds.Count = 0
    cached: bounds.Count = 0
    total_us: bounds.Count = 0
    queue_us: bounds.Count = 0
    hedges: bounds.Count = 0
    explored: bounds.Count = 0
    shadow: bounds.Count = 0
    shadow_gain_us: bounds.Signed = 0


class Rows(Struct, frozen=True, gc=False, omit_defaults=True):
    """Sums of all three kinds."""

    layers: Annotated[tuple[LayerSum, ...], Meta(max_length=bounds.MAX_ROWS)] = ()
    plans: Annotated[tuple[PlanSum, ...], Meta(max_length=bounds.MAX_ROWS)] = ()
    queries: Annotated[tuple[QuerySum, ...], Meta(max_length=bounds.MAX_ROWS)] = ()

    @property
    def count(self) -> int:
        """Rows of all kinds."""
        return len(self.layers) + len(self.plans) + len(self.queries)
