"""From a settled join to the one answer."""

from __future__ import annotations

from typing import Final, Literal

from msgspec import structs

from anabranch.aggregate.join import Join, JoinLayer
from anabranch.aggregate.result_aggregator import LayerPart, ResultAggregator
from anabranch.config import TypeConfig
from anabranch.coordinator.open_query import OpenQuery
from anabranch.events import MAX_VALUE_BYTES, Answer, Error, Missing, encode

__all__ = ["compose", "encode_bounded", "failure"]

_DEFAULT_TYPE: Final = TypeConfig()


def compose(
    open_query: OpenQuery,
    aggregator: ResultAggregator,
    configured: TypeConfig | None,
    *,
    epoch: int,
    now_ms: float,
) -> Answer:
    """The answer to a query whose join is over."""
    query, join, decision = open_query.query, open_query.join, open_query.decision
    kind = configured or _DEFAULT_TYPE
    merged = aggregator.aggregate(
        [_part(layer) for layer in join.layers.values() if layer.status == "ok"],
        wanted=len(join.layers),
        limit=query.limit,
        fusion=kind.fusion,
        weights=kind.weights,
    )
    status = _status(join)
    return Answer(
        id=query.id,
        status=status,
        strategy=decision.strategy if decision else None,
        reason=decision.reason if decision else "",
        confidence=merged.confidence,
        items=merged.items,
        truncated=merged.truncated,
        layers={name: layer.report() for name, layer in join.layers.items()},
        missing=_missing(join),
        agreement=merged.agreement,
        estimated_ms=decision.estimated_ms if decision else None,
        took_ms=round(max(0.0, now_ms - open_query.read_ms), 3),
        attempt=epoch,
        trace_id=open_query.trace.trace_id,
        error=_error(join, open_query, now_ms) if status == "failed" else None,
    )


def encode_bounded(answer: Answer) -> bytes:
    """The answer as bytes; what does not fit into a record is cut off its end and said so."""
    value = encode(answer)
    while len(value) > MAX_VALUE_BYTES and answer.items:
        keep = min(len(answer.items) - 1, len(answer.items) * MAX_VALUE_BYTES // len(value))
        answer = structs.replace(answer, items=answer.items[:keep], truncated=True)
        value = encode(answer)
    return value


def failure(query_id: str, error: Error, *, epoch: int, trace_id: str | None) -> Answer:
    """The answer to what could not be asked at all."""
    return Answer(
        id=query_id, status="failed", attempt=epoch, trace_id=trace_id, agreement=0.0, error=error
    )


def _part(layer: JoinLayer) -> LayerPart:
    return LayerPart(
        layer=layer.name,
        source=layer.source,
        items=layer.items,
        age_ms=layer.age_ms,
        complete=layer.complete,
    )


def _status(join: Join) -> Literal["complete", "partial", "failed"]:
    if all(layer.whole for layer in join.layers.values()):
        return "complete"
    return "partial" if join.ok else "failed"


def _missing(join: Join) -> list[Missing]:
    return [
        Missing(layer.name, layer.error or layer.status)
        for layer in join.layers.values()
        if not layer.whole
    ]


def _error(join: Join, open_query: OpenQuery, now_ms: float) -> Error:
    """Why no layer is ok, in one code."""
    layers = join.layers.values()
    if all(layer.status == "skipped" for layer in layers):
        return Error("unavailable", f"no layer could be asked: {_why(join)}")
    if any(layer.status == "timeout" for layer in layers) and now_ms >= open_query.deadline_ms:
        return Error("expired", f"nothing came before the deadline: {_why(join)}")
    return Error("internal", f"every layer failed: {_why(join)}")


def _why(join: Join) -> str:
    return "; ".join(f"{missing.layer}: {missing.why}" for missing in _missing(join))
