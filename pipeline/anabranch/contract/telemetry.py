"""What is recorded of an answered query, and how it travels on the `telemetry` topic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from msgspec import Meta, Struct

from anabranch.contract import bounds
from anabranch.contract.bounds import clamped_ms
from anabranch.contract.events import Source, Strategy
from anabranch.contract.plan import Arm, Decision, PlanContext, PlanPart
from anabranch.contract.rows import Rows

__all__ = ["ExecutionTelemetry", "LayerOutcome", "TelemetryBatch", "telemetry_of"]


class LayerOutcome(Struct, frozen=True, gc=False):
    """What came of one wanted layer.

    Attributes:
        took_ms: inside the layer (None: unknown, or it came from the cache).
        queued_ms: in the worker's queue.
        elapsed_ms: from the plan to the arrival of its last shard; for a layer that never
            came, to the answer.
        used: it contributed an item to the joined answer.
        changed: it replaced an older result in the cache, with other content (True) or the
            same (False); None if there was none.
        shared: another query fetched it, and told of it: it says nothing of layers and arms.
        tried: it had been learned to be of no use, and was asked all the same, to see.
    """

    layer: bounds.LayerName
    source: Source
    status: Literal["ok", "timeout", "error", "skipped"] = "ok"
    took_ms: bounds.Millis | None = None
    queued_ms: bounds.Millis = 0.0
    elapsed_ms: bounds.Millis = 0.0
    count: bounds.Count = 0
    used: bool = False
    changed: bool | None = None
    tried: bool = False
    shared: bool = False


class ExecutionTelemetry(Struct, frozen=True, gc=False):
    """One answered query; never its params.

    Attributes:
        at_ms: when it was answered, Unix epoch on the broker's clock.
        estimation_error_pct: |estimated - total| / total * 100.
        parallel_speedup: measured SEQUENTIAL baseline of the same layers / total; None
            without a baseline. Both speed-ups are told of sampled records only.
        distributed_speedup: measured PARALLEL baseline of the same layers / total.
        queue_wait_ms: longest wait of a layer in a worker's queue.
        hedges: attempts beyond the first.
        coverage: share of wanted layers that are ok, 0..1.
        probability: of the plan that was taken, given the context.
        plan: its arms with what was expected of each.
        sampled: probability with which a record like this is kept for replay.
        context: what the decision was made from; only in sampled records on the wire.
    """

    query: bounds.QueryId
    type: bounds.TypeName
    at_ms: bounds.Count
    strategy_chosen: Strategy
    strategy_confidence: bounds.Fraction
    estimated_latency_ms: bounds.Millis
    total_latency_ms: bounds.Millis
    estimation_error_pct: bounds.Ratio
    cache_hit: bool
    success: bool
    layers: Annotated[tuple[LayerOutcome, ...], Meta(max_length=bounds.MAX_LAYERS)]
    parallel_speedup: bounds.Ratio | None = None
    distributed_speedup: bounds.Ratio | None = None
    queue_wait_ms: bounds.Millis = 0.0
    hedges: bounds.Count = 0
    coverage: bounds.Fraction = 1.0
    estimates: Mapping[Arm, bounds.Millis] = {}
    probability: bounds.Fraction = 1.0
    explored: bool = False
    plan: Annotated[tuple[PlanPart, ...], Meta(max_length=bounds.MAX_LAYERS)] = ()
    shadow: Strategy | None = None
    shadow_ms: bounds.Millis | None = None
    sampled: bounds.Fraction = 1.0
    context: PlanContext | None = None


class TelemetryBatch(Struct, frozen=True, gc=False):
    """What an instance saw since its last batch, on `telemetry`.

    Attributes:
        instance: who; a name that is new with every start of a process.
        sequence: 1, 2, ... within the instance: a batch counts once however often it is read.
        sampled: raw records, for replay.
        dropped: records that were not counted because a bound was met.
    """

    instance: bounds.Instance
    sequence: bounds.Count
    rows: Rows = Rows()
    sampled: Annotated[tuple[ExecutionTelemetry, ...], Meta(max_length=1_024)] = ()
    dropped: bounds.Count = 0


def telemetry_of(
    context: PlanContext,
    decision: Decision,
    layers: Sequence[LayerOutcome],
    *,
    at_ms: int,
    total_ms: float,
    success: bool,
    hedges: int = 0,
) -> ExecutionTelemetry:
    """The record of a query that was planned by `decision` and is now answered.

    Args:
        layers: an outcome for each wanted layer.
        total_ms: from the plan to the answer.
        success: the answer is `complete`.
    """
    total_ms = clamped_ms(total_ms)
    error = abs(decision.estimated_ms - total_ms) / total_ms * 100 if total_ms > 0 else 0.0
    ok, queue_wait_ms = 0, 0.0
    for outcome in layers:
        ok += outcome.status == "ok"
        if outcome.queued_ms > queue_wait_ms:
            queue_wait_ms = outcome.queued_ms
    return ExecutionTelemetry(
        context.query,
        context.type,
        at_ms,
        decision.strategy,
        decision.confidence,
        decision.estimated_ms,
        total_ms,
        error if error < bounds.MAX_SCORE else bounds.MAX_SCORE,
        bool(context.cached),
        success,
        tuple(layers),
        queue_wait_ms=queue_wait_ms,
        hedges=hedges,
        coverage=ok / len(layers) if layers else 0.0,
        estimates=decision.estimates,
        probability=decision.probability,
        explored=decision.explored,
        plan=decision.parts,
        shadow=decision.shadow,
        shadow_ms=decision.shadow_ms,
        context=context,
    )
