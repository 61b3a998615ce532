"""What the cache has for a query that was just read."""

from __future__ import annotations

from anabranch.cache.cross_layer_cache import CrossLayerCache
from anabranch.cache.keys import Question, make_key
from anabranch.config.settings import Config
from anabranch.contract.events import Query
from anabranch.coordinator.query.invalidations import Invalidations
from anabranch.coordinator.query.open_query import OpenQuery
from anabranch.coordinator.query.speculation import Speculation

__all__ = ["CacheLookup"]


class CacheLookup:
    """What the cache has for a query; rule 5: before anything is chosen."""

    def __init__(
        self,
        cache: CrossLayerCache,
        invalidations: Invalidations,
        speculation: Speculation,
        config: Config,
    ) -> None:
        self._cache = cache
        self._invalidations = invalidations
        self._speculation = speculation
        self._config = config

    def question(self, query: Query, now_ms: float) -> Question:
        """What is asked, as the cache knows it: all who ask the same have the same."""
        kind = self._config.type_config(query.type)
        key = make_key(query.type, query.scope, query.params, kind.key_params)
        self._speculation.asked(key, now_ms)
        return key

    def probe(self, open_query: OpenQuery, now_ms: float) -> None:
        """Serve what is there."""
        query, join = open_query.query, open_query.join
        open_query.generation = self._invalidations.position
        found = self._cache.probe(
            open_query.key,
            tuple(join.layers),
            limit=query.limit,
            max_age_ms=query.max_age_ms,
            now_ms=now_ms,
        )
        open_query.slots = found.hits
        for name, slot in found.hits.items():
            age_ms = max(0, int(now_ms - slot.stored_ms))
            join.layers[name].serve(slot.items, complete=slot.complete, age_ms=age_ms)
        for name in found.refresh:
            join.layers[name].refreshing = True
