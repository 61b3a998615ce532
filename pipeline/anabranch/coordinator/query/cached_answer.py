"""The short path of a query that the cache answers whole: from its question to the answer's bytes.

What all who ask the same have in common was made once, by the first of them on the long path
(`open_queries`), and lies beside the question's slots. A hit fills in the rest.
"""

from __future__ import annotations

from typing import Final

from msgspec import Raw, Struct
from msgspec.structs import replace

from anabranch.aggregate.result_aggregator import LayerPart, ResultAggregator
from anabranch.cache.cross_layer_cache import CrossLayerCache
from anabranch.cache.keys import Question
from anabranch.cache.slots import Slot
from anabranch.contract.codec import MAX_VALUE_BYTES, encode
from anabranch.contract.events import Answer, AnswerItem, AnswerLayer, Query
from anabranch.coordinator.query.answering import attributes, fitting
from anabranch.coordinator.query.claim import Claim
from anabranch.coordinator.query.open_query import OpenQuery, answer_headers
from anabranch.coordinator.query.outbox import AnswerOut
from anabranch.dispatch.layer_registry import LayerRegistry
from anabranch.kafka.transport import Record
from anabranch.learn.dependency_graph import LayerSelection
from anabranch.learn.execution_telemetry import ExecutionTelemetryCollector
from anabranch.observe.spans import Trace

__all__ = ["CachedAnswers"]

MEMO_BYTES: Final = 1_000
"""Of memory that a memo takes beside its items, and as much again for each of its layers."""
MAX_MEMO_BYTES: Final = MAX_VALUE_BYTES // 2
"""Whoever is answered from a memo gets it whole: it must fit into a record."""


class _Memo(Struct, frozen=True, gc=False):
    """An answer from the cache alone, without what each query has for itself.

    Attributes:
        answer: with its items encoded.
        slots: what it was made from: layer, slot and the layer's weight.
    """

    answer: Answer
    slots: tuple[tuple[str, Slot, float], ...]


class CachedAnswers:
    """Answers queries of which every wanted layer is cached and fresh."""

    def __init__(
        self,
        cache: CrossLayerCache,
        registry: LayerRegistry,
        aggregator: ResultAggregator,
        telemetry: ExecutionTelemetryCollector,
    ) -> None:
        self._cache = cache
        self._registry = registry
        self._aggregator = aggregator
        self._telemetry = telemetry

    def answer(
        self,
        query: Query,
        key: Question,
        selection: LayerSelection,
        record: Record,
        trace: Trace,
        claim: Claim,
        now_ms: float,
    ) -> AnswerOut | None:
        """The answer; None if it was not remembered, or is to be recorded in full."""
        if selection.left_out or selection.explored or self._telemetry.is_sampled(query.id):
            return None
        memo: _Memo | None = self._cache.prepared(
            key,
            selection.layers,
            limit=query.limit,
            max_age_ms=query.max_age_ms,
            now_ms=now_ms,
            revision=self._registry.revision,
        )
        if memo is None:
            return None
        answer = self._told(memo, query, trace, claim, now_ms)
        if trace.is_recorded:
            trace.set(attributes(answer))
            trace.end()
        self._telemetry.count_cached(query.type, selection.layers, now_ms)
        headers = answer_headers(record, trace)
        return AnswerOut(
            claim, record.offset, query.id.encode(), encode(answer), headers, query.reply_to
        )

    def remember(self, open_query: OpenQuery, answer: Answer) -> None:
        """Keep an answer that came from the cache alone, for those who ask the same."""
        names = tuple(open_query.join.layers)
        if len(open_query.slots) < len(names) or open_query.selection.left_out:
            return
        if fitting(answer) is not answer:
            return  # more than a record holds, and maybe gigabytes
        items = encode(answer.items)
        if len(items) > MAX_MEMO_BYTES:
            return
        encoded: list[AnswerItem] = Raw(items)  # type: ignore[assignment]
        slots = tuple((name, open_query.slots[name], self._registry.weight(name)) for name in names)
        self._cache.remember(
            open_query.key,
            names,
            open_query.query.limit,
            open_query.slots,
            _Memo(replace(answer, items=encoded), slots),
            len(items) + MEMO_BYTES * (1 + len(names)),
            self._registry.revision,
        )

    def _told(self, memo: _Memo, query: Query, trace: Trace, claim: Claim, now_ms: float) -> Answer:
        """The remembered answer, as old as it is now."""
        before, layers, parts = memo.answer, {}, []
        for name, slot, weight in memo.slots:
            age_ms = max(0, int(now_ms - slot.stored_ms))
            layers[name] = AnswerLayer("cache", "ok", len(slot.items), age_ms)
            parts.append(LayerPart(name, "cache", slot.items, age_ms, slot.complete, weight))
        agreement = before.agreement
        return Answer(
            query.id,
            before.status,
            before.strategy,
            before.reason,
            self._aggregator.confidence(parts, wanted=len(parts), agreement=agreement),
            before.items,
            before.truncated,
            layers,
            before.missing,
            agreement,
            before.estimated_ms,
            0.0,
            claim.epoch,
            trace.trace_id,
        )
