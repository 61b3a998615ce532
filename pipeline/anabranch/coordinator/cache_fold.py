"""Rule 7: the cache is a fold over partials, those of a takeover and late ones included."""

from __future__ import annotations

from typing import Final

from msgspec import Raw

from anabranch.cache.keys import Question
from anabranch.cache.records import Slot, size_of
from anabranch.coordinator.brain import Brain
from anabranch.coordinator.open_query import Memo, OpenQuery
from anabranch.events import MAX_VALUE_BYTES, Answer, Item, Partial, PartialResult, encode
from anabranch.kafka.transport import Record

__all__ = ["fold_partial", "memoise"]

MAX_MEMO_BYTES: Final = MAX_VALUE_BYTES // 2
"""Whoever is answered from a memo gets it whole: it must fit into a record."""


def fold_partial(
    brain: Brain, record: Record, partial: Partial, open_query: OpenQuery | None
) -> None:
    """Keep what a partial brought; under its digest where the question is not known any more.

    Only whole layers are kept: of a layer in shards the slot is filled when its join is.
    """
    if not partial.key:
        return
    key: Question | str = partial.key
    if open_query is None:
        key = brain.guessing.question(partial.key) or partial.key
    else:
        if open_query.digest != partial.key:
            return  # not the question that was asked: never under its key
        key = open_query.key
    for result in partial.results:
        if open_query is not None:
            brain.guessing.worked(result.took_ms)
        if result.status != "ok":
            continue
        whole = _whole(result, open_query)
        if whole is not None:
            items, complete = whole
            slot = Slot(
                items=items,
                complete=complete,
                limit=partial.limit,
                stored_ms=float(record.timestamp),
                ttl_ms=_ttl_ms(brain, result),
                generation=partial.generation,
                tags=tuple(result.tags),
                cost_ms=result.took_ms,
                size_bytes=size_of(items),
            )
            brain.cache.store(key, result.layer, slot, brain.now_ms())


def memoise(brain: Brain, open_query: OpenQuery, answer: Answer) -> None:
    """Keep the merged items of an answer that came from the cache alone."""
    names = tuple(open_query.join.layers)
    if open_query.memo is not None or len(open_query.slots) < len(names):
        return
    memo = Memo(
        items=Raw(encode(answer.items)),
        truncated=answer.truncated,
        agreement=answer.agreement,
        confidence=answer.confidence,
        used=tuple({name for item in answer.items for name in item.layers}),
    )
    if len(memo.items) < MAX_MEMO_BYTES:
        limit = open_query.query.limit
        brain.cache.remember(open_query.key, names, limit, open_query.slots, encode(memo))


def _whole(result: PartialResult, open_query: OpenQuery | None) -> tuple[list[Item], bool] | None:
    if result.shards == 1:
        return result.items, result.complete
    layer = open_query.join.layers.get(result.layer) if open_query else None
    if layer is None or not layer.whole or layer.source == "cache":
        return None
    return list(layer.items), layer.complete


def _ttl_ms(brain: Brain, result: PartialResult) -> int:
    """The result's own, else the layer's as its workers announced it."""
    if result.ttl_ms is not None:
        return result.ttl_ms
    descriptor = brain.directory.descriptor(result.layer)
    return descriptor.ttl_ms if descriptor else brain.cache.ttl_for(result.layer)
