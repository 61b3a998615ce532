"""What an answered query teaches."""

from __future__ import annotations

from collections.abc import Callable

from anabranch.aggregate.join import JoinLayer
from anabranch.contract.bounds import clamped_ms
from anabranch.contract.events import Answer, PartialResult
from anabranch.contract.plan import Decision
from anabranch.contract.telemetry import ExecutionTelemetry, LayerOutcome, telemetry_of
from anabranch.coordinator.query.open_query import OpenQuery

__all__ = ["telemetry_record"]

Speedups = Callable[[Decision, float], tuple[float | None, float | None]]


def telemetry_record(
    open_query: OpenQuery, answer: Answer, now_ms: float, speedups: Speedups
) -> ExecutionTelemetry | None:
    """The telemetry record of an answered query; None if nothing was decided for it."""
    decision, context = open_query.decision, open_query.context
    if decision is None or context is None:
        return None
    total_ms = max(0.0, now_ms - open_query.read_ms)
    used = {name for item in answer.items for name in item.layers}
    return telemetry_of(
        context,
        decision,
        [
            _outcome(layer, open_query, now_ms, used=layer.name in used)
            for layer in open_query.join.layers.values()
        ],
        at_ms=int(now_ms),
        total_ms=total_ms,
        success=answer.status == "complete",
        speedups=speedups(decision, total_ms),
    )


def _outcome(layer: JoinLayer, open_query: OpenQuery, now_ms: float, *, used: bool) -> LayerOutcome:
    if layer.fresh is not None:
        return _refreshed(layer, layer.fresh, open_query, now_ms, used=used)
    arrived_ms = now_ms if layer.arrived_ms is None else layer.arrived_ms
    return LayerOutcome(
        layer=layer.name,
        source=layer.source,
        status="skipped" if layer.status == "open" else layer.status,
        took_ms=layer.took_ms,
        queued_ms=layer.queued_ms,
        elapsed_ms=max(0.0, arrived_ms - open_query.read_ms),
        count=len(layer.items),
        used=used,
        shared=layer.shared,
        tried=layer.name == open_query.selection.explored,
    )


def _refreshed(
    layer: JoinLayer, fresh: PartialResult, open_query: OpenQuery, now_ms: float, *, used: bool
) -> LayerOutcome:
    """A worker was asked although the cache had it: what that took, and whether it paid."""
    return LayerOutcome(
        layer=layer.name,
        source=open_query.refreshed_by(layer),
        took_ms=clamped_ms(fresh.took_ms),
        queued_ms=clamped_ms(fresh.queued_ms),
        elapsed_ms=max(0.0, now_ms - open_query.read_ms),
        count=len(fresh.items),
        used=used,
        changed=list(layer.items) != fresh.items,
    )
