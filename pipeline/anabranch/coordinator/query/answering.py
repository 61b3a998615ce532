"""From a settled join to the one answer."""

from __future__ import annotations

from typing import Final, Literal

from msgspec import structs

from anabranch.aggregate.join import Join, JoinLayer
from anabranch.aggregate.result_aggregator import LayerPart, Merged, ResultAggregator
from anabranch.config.settings import Config
from anabranch.contract.bounds import clamped_ms
from anabranch.contract.codec import MAX_VALUE_BYTES, encode
from anabranch.contract.events import Answer, AnswerLayer, Error, Missing
from anabranch.coordinator.query.open_query import OpenQuery
from anabranch.dispatch.layer_registry import LayerRegistry

__all__ = ["Composer", "attributes", "encode_bounded", "failure", "fitting"]

MAX_TOLD_CHARS: Final = 1_000
"""Of an answer's reason, or its error."""
MAX_TERSE_CHARS: Final = 100
"""Of what is said of a layer, where there is not room for more."""
FEW_LAYERS: Final = 8
"""Up to which all that was found is encoded at once."""
NOT_SELECTED: Final = AnswerLayer(status="skipped", error="not selected")


class Composer:
    """Composes answers from joins that are over."""

    def __init__(
        self, aggregator: ResultAggregator, registry: LayerRegistry, config: Config
    ) -> None:
        self._aggregator = aggregator
        self._registry = registry
        self._config = config

    def compose(self, open_query: OpenQuery, *, epoch: int, now_ms: float) -> Answer:
        """The answer to a query whose join is over."""
        query, join, decision = open_query.query, open_query.join, open_query.decision
        merged = self._merge(open_query)
        status = _status(join)
        layers = {name: self._report(open_query, layer) for name, layer in join.layers.items()}
        layers |= dict.fromkeys(open_query.selection.left_out, NOT_SELECTED)
        return Answer(
            id=query.id,
            status=status,
            strategy=decision.strategy if decision else None,
            reason=cut(decision.reason, MAX_TOLD_CHARS) if decision else "",
            confidence=merged.confidence,
            items=merged.items,
            truncated=merged.truncated,
            layers=layers,
            missing=_missing(join),
            agreement=merged.agreement,
            estimated_ms=decision.estimated_ms if decision else None,
            took_ms=round(max(0.0, now_ms - open_query.read_ms), 3),
            attempt=epoch,
            trace_id=open_query.trace.trace_id,
            error=_error(join, open_query, now_ms) if status == "failed" else None,
        )

    def _merge(self, open_query: OpenQuery) -> Merged:
        kind = self._config.type_config(open_query.query.type)
        return self._aggregator.aggregate(
            self._parts(open_query),
            wanted=len(open_query.join.layers),
            limit=open_query.query.limit,
            fusion=kind.fusion,
            weights=kind.weights,
        )

    def _parts(self, open_query: OpenQuery) -> list[LayerPart]:
        layers = [layer for layer in open_query.join.layers.values() if layer.status == "ok"]
        return [self._part(open_query, layer) for layer in layers]

    def _part(self, open_query: OpenQuery, layer: JoinLayer) -> LayerPart:
        """What counts of a layer; of one that was refreshed beside others, one of two."""
        part = LayerPart(
            layer=layer.name,
            source=layer.source,
            items=layer.items,
            age_ms=layer.age_ms,
            complete=layer.complete,
            weight=self._registry.weight(layer.name),
        )
        if layer.fresh is None:
            return part
        fresh = LayerPart(
            layer=layer.name,
            source=open_query.refreshed_by(layer),
            items=layer.fresh.items,
            complete=layer.fresh.complete,
            weight=part.weight,
        )
        return self._aggregator.resolve(part, fresh)

    def _report(self, open_query: OpenQuery, layer: JoinLayer) -> AnswerLayer:
        """How a layer stands in the answer: as the part of it that counts."""
        if layer.fresh is None:
            return layer.report()
        part = self._part(open_query, layer)
        if part.items is layer.items:
            return layer.report()
        return AnswerLayer(
            source=part.source,
            count=len(part.items),
            age_ms=0,
            took_ms=clamped_ms(layer.fresh.took_ms),
        )


def encode_bounded(answer: Answer) -> bytes:
    """The answer as bytes; what does not fit into a record is cut off its end and said so.

    Without items it fits: names of layers are bounded, and so is what is said of each. Hundreds of
    layers may have found a megabyte each: no more of it is encoded than may fit.
    """
    value = encode(answer := fitting(answer))
    if len(value) > MAX_VALUE_BYTES:
        answer = _terse(answer)
        value = encode(answer)
    while len(value) > MAX_VALUE_BYTES and answer.items:
        keep = min(len(answer.items) - 1, len(answer.items) * MAX_VALUE_BYTES // len(value))
        answer = structs.replace(answer, items=answer.items[:keep], truncated=True)
        value = encode(answer)
    return value


def failure(query_id: str, error: Error, *, epoch: int, trace_id: str | None) -> Answer:
    """The answer to what could not be asked at all."""
    told = Error(error.code, cut(error.message, MAX_TOLD_CHARS))
    return Answer(
        id=query_id, status="failed", attempt=epoch, trace_id=trace_id, agreement=0.0, error=told
    )


def cut(text: str, most: int) -> str:
    """Foreign text as long as it may be repeated."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def fitting(answer: Answer) -> Answer:
    """Itself, or without the items that come when a record is full already."""
    if len(answer.layers) <= FEW_LAYERS or not isinstance(answer.items, list):
        return answer  # what few layers found, or a memo: bounded
    size_bytes = 0
    for n, item in enumerate(answer.items):
        size_bytes += len(encode(item))
        if size_bytes > MAX_VALUE_BYTES:
            return structs.replace(answer, items=answer.items[:n], truncated=True)
    return answer


def _terse(answer: Answer) -> Answer:
    """With little said of each layer."""
    layers = {
        name: structs.replace(layer, error=cut(layer.error, MAX_TERSE_CHARS))
        if layer.error
        else layer
        for name, layer in answer.layers.items()
    }
    missing = [Missing(it.layer, cut(it.why, MAX_TERSE_CHARS)) for it in answer.missing]
    return structs.replace(answer, layers=layers, missing=missing)


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
    said = "; ".join(f"{missing.layer}: {missing.why}" for missing in _missing(join))
    return cut(said, MAX_TOLD_CHARS)


def attributes(answer: Answer, shared: str = "") -> dict[str, str | float | int]:
    """The decision and the outcome, as span attributes; `shared` names what others fetched."""
    return {
        "anabranch.query.id": answer.id,
        "anabranch.status": answer.status,
        "anabranch.strategy": answer.strategy or "none",
        "anabranch.reason": answer.reason,
        "anabranch.confidence": answer.confidence,
        "anabranch.items": sum(layer.count for layer in answer.layers.values()),
        "anabranch.shared": shared,
    }
