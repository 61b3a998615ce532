"""What the cache has for a query that was just read."""

from __future__ import annotations

from anabranch.cache.cross_layer_cache import CrossLayerCache
from anabranch.cache.keys import make_key
from anabranch.config.settings import Config
from anabranch.coordinator.query.invalidations import Invalidations
from anabranch.coordinator.query.open_query import Memo, OpenQuery
from anabranch.coordinator.query.speculation import Speculation
from anabranch.dispatch.layer_registry import LayerRegistry

__all__ = ["CacheLookup"]


class CacheLookup:
    """What the cache has for a query; rule 5: before anything is chosen."""

    def __init__(
        self,
        cache: CrossLayerCache,
        registry: LayerRegistry,
        invalidations: Invalidations,
        speculation: Speculation,
        config: Config,
    ) -> None:
        self._cache = cache
        self._registry = registry
        self._invalidations = invalidations
        self._speculation = speculation
        self._config = config

    def probe(self, open_query: OpenQuery, now_ms: float) -> None:
        """Serve what is there."""
        query, join = open_query.query, open_query.join
        open_query.generation = self._invalidations.position
        kind = self._config.type_config(query.type)
        open_query.key = make_key(query.type, query.scope, query.params, kind.key_params)
        self._speculation.asked(open_query.key, now_ms)
        found = self._cache.probe(
            open_query.key,
            tuple(join.layers),
            limit=query.limit,
            max_age_ms=query.max_age_ms,
            now_ms=now_ms,
        )
        open_query.slots = found.hits
        if found.memo is not None:
            memo: Memo = found.memo
            open_query.memo = memo if memo.weighed == self._registry.revision else None
        for name, slot in found.hits.items():
            age_ms = max(0, int(now_ms - slot.stored_ms))
            join.layers[name].serve(slot.items, complete=slot.complete, age_ms=age_ms)
        for name in found.refresh:
            join.layers[name].refreshing = True
