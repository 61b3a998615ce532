"""What an answered query teaches."""

from __future__ import annotations

from anabranch.aggregate.join import JoinLayer
from anabranch.contract.bounds import clamped_ms
from anabranch.contract.events import Answer, PartialResult
from anabranch.contract.telemetry import ExecutionTelemetry, LayerOutcome, telemetry_of
from anabranch.coordinator.query.open_query import OpenQuery

__all__ = ["telemetry_record"]


def telemetry_record(
    open_query: OpenQuery, answer: Answer, now_ms: float
) -> ExecutionTelemetry | None:
    """The telemetry record of an answered query; None if nothing was decided for it."""
    decision, context = open_query.decision, open_query.context
    if decision is None or context is None:
        return None
    used: set[str] = set().union(*[item.layers for item in answer.items])
    layers = [
        _outcome(layer, open_query, now_ms, layer.name in used)
        for layer in open_query.join.layers.values()
    ]
    return telemetry_of(
        context,
        decision,
        layers,
        at_ms=int(now_ms),
        total_ms=max(0.0, now_ms - open_query.read_ms),
        success=answer.status == "complete",
    )


def _outcome(layer: JoinLayer, open_query: OpenQuery, now_ms: float, used: bool) -> LayerOutcome:
    if layer.fresh is not None:
        return _refreshed(layer, layer.fresh, open_query, now_ms, used)
    elapsed_ms = (now_ms if layer.arrived_ms is None else layer.arrived_ms) - open_query.read_ms
    return LayerOutcome(
        layer.name,
        layer.source,
        "skipped" if layer.status == "open" else layer.status,
        layer.took_ms,
        layer.queued_ms,
        elapsed_ms if elapsed_ms > 0 else 0.0,
        len(layer.items),
        used,
        shared=layer.shared,
        tried=layer.name == open_query.selection.explored,
    )


def _refreshed(
    layer: JoinLayer, fresh: PartialResult, open_query: OpenQuery, now_ms: float, used: bool
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
