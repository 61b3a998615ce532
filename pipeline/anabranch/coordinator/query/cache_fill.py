"""Rule 7: the cache is a fold over partials, those of a takeover and late ones included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from anabranch.cache.cross_layer_cache import CrossLayerCache
from anabranch.cache.keys import Question
from anabranch.cache.slots import Slot
from anabranch.contract.bounds import MAX_SPAN_MS, clamped_ms
from anabranch.contract.events import Item, LayerDescriptor, Partial, PartialResult
from anabranch.coordinator.query.invalidations import Invalidations
from anabranch.coordinator.query.open_query import OpenQuery
from anabranch.coordinator.query.speculation import Speculation
from anabranch.dispatch.layer_registry import LayerRegistry
from anabranch.kafka.transport import Record

__all__ = ["CacheFill"]


class _Whole(NamedTuple):
    """All that a layer gave: results of its shards, and what they make together."""

    shards: Sequence[PartialResult]
    items: Sequence[Item]
    complete: bool
    since_ms: float


class CacheFill:
    """Puts into the cache what workers found."""

    def __init__(
        self,
        cache: CrossLayerCache,
        registry: LayerRegistry,
        invalidations: Invalidations,
        speculation: Speculation,
    ) -> None:
        self._cache = cache
        self._registry = registry
        self._invalidations = invalidations
        self._speculation = speculation

    def partial(
        self, record: Record, partial: Partial, open_query: OpenQuery | None, now_ms: float
    ) -> None:
        """Keep what a partial brought; under its digest where the question is not known any more.

        Only whole layers are kept: of a layer in shards the slot is filled when its join is. Layers
        that nobody has announced are not kept. What the coordinator knows of an open query counts,
        not what a worker wrote of it into the partial.
        """
        if not partial.key:
            return
        key: Question | str = partial.key
        limit, generation = partial.limit, partial.generation
        if open_query is None:
            key = self._speculation.question(partial.key) or partial.key
        else:
            if open_query.digest != partial.key:
                return  # not the question that was asked: never under its key
            key, limit = open_query.key, open_query.query.limit
            generation = open_query.generation
        if generation > self._invalidations.position:
            return  # it lies, or `control` begins anew: what it missed cannot be known
        came_ms = _came_ms(record, open_query, now_ms)
        slots = [
            (result.layer, _slot(whole, layer, limit, generation))
            for result in partial.results
            if (whole := _whole(came_ms, result, open_query)) is not None
            and (layer := self._registry.descriptor(result.layer)) is not None
        ]
        self._cache.store_all(key, slots, now_ms)  # all of a partial is kept, or nothing
        if open_query is not None:
            took_ms = sum(clamped_ms(result.took_ms) for result in partial.results)
            self._speculation.worked(took_ms)


def _slot(whole: _Whole, layer: LayerDescriptor, limit: int, generation: int) -> Slot:
    return Slot(
        items=whole.items,
        complete=whole.complete,
        limit=limit,
        stored_ms=whole.since_ms,
        ttl_ms=min(MAX_SPAN_MS, *(_ttl_ms(layer, shard) for shard in whole.shards)),
        generation=generation,
        tags=tuple(dict.fromkeys(tag for s in whole.shards for tag in s.tags)),
        cost_ms=sum(clamped_ms(s.took_ms) for s in whole.shards),
    )


def _came_ms(record: Record, open_query: OpenQuery | None, now_ms: float) -> float:
    """When a partial was appended: whatever its stamp says, after its query and before now."""
    asked_ms = open_query.read_ms if open_query is not None else 0.0
    return min(max(float(record.timestamp), asked_ms), now_ms)


def _whole(at_ms: float, result: PartialResult, open_query: OpenQuery | None) -> _Whole | None:
    """What a layer's (last) result completes, as old as its first."""
    if result.status != "ok":
        return None
    if result.shards == 1:
        return _Whole([result], result.items, result.complete, at_ms)
    layer = open_query.join.layers.get(result.layer) if open_query else None
    if layer is None or not layer.whole or not any(part is result for part in layer.results):
        return None
    since_ms = at_ms if layer.first_ms is None else min(at_ms, layer.first_ms)
    return _Whole(layer.results, layer.items, layer.complete, since_ms)


def _ttl_ms(layer: LayerDescriptor, result: PartialResult) -> int:
    """The result's own, else the layer's as its workers announced it."""
    return layer.ttl_ms if result.ttl_ms is None else result.ttl_ms
