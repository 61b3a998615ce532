"""Warming and prefetch: what nobody has asked yet is fetched at LOW priority, within a budget.

Off unless configured. The choices are `cache.warming` and `cache.prefetch`; here they become
fetches, and what comes back is folded into the cache under its question.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from anabranch.cache.cross_layer_cache import CrossLayerCache
from anabranch.cache.keys import Question, question_digest
from anabranch.cache.prefetch import Prefetcher
from anabranch.cache.sizes import key_bytes
from anabranch.cache.warming import Warmer
from anabranch.config.settings import CoordinatorConfig
from anabranch.coordinator.query.speculative_tasks import SpeculativeTasks
from anabranch.dispatch.intake import Intake
from anabranch.dispatch.layer_registry import LayerRegistry
from anabranch.learn.profiler import LayerProfiler

__all__ = ["Speculation"]

_MOST_UNDER_WAY: Final = 1_000
_MAX_QUESTION_BYTES: Final = 1_000
"""Of memory: larger questions are not fetched ahead, so that what is remembered is bounded."""


class Speculation:
    """Fetches ahead of being asked."""

    def __init__(
        self,
        config: CoordinatorConfig,
        intake: Intake,
        cache: CrossLayerCache,
        registry: LayerRegistry,
        profiler: LayerProfiler,
        tasks: SpeculativeTasks,
    ) -> None:
        self._intake = intake
        self._cache = cache
        self._registry = registry
        self._profiler = profiler
        self._tasks = tasks
        self._warmer = Warmer() if config.warm else None
        self._prefetcher = Prefetcher() if config.prefetch else None
        self._under_way: OrderedDict[str, Question] = OrderedDict()

    def asked(self, key: Question, now_ms: float) -> None:
        """A question was asked: what tends to follow it is fetched, if the budget allows."""
        if self._prefetcher is None or key_bytes(key) > _MAX_QUESTION_BYTES:
            return
        self._prefetcher.asked(key, now_ms)
        for other, _ in self._prefetcher.likely(key):
            layers = self._intake.default_layers(other[0])
            if not layers or self._cache.holds(other, layers, now_ms):
                continue
            cost_ms = sum(self._profiler.latency_ms(layer) for layer in layers)
            if self._prefetcher.guess(other, cost_ms, now_ms + self._ttl_ms(layers)):
                self._fetch(other, layers, 20, now_ms)

    def worked(self, cost_ms: float) -> None:
        """Back ends worked for a question that was asked."""
        for speculator in (self._warmer, self._prefetcher):
            if speculator is not None:
                speculator.budget.worked(cost_ms)

    def question(self, digest: str) -> Question | None:
        """The question that is fetched ahead under a digest, once."""
        return self._under_way.pop(digest, None)

    def stats(self) -> dict[str, dict[str, float]]:
        """What was fetched ahead, and what came of it."""
        speculators = {"warming": self._warmer, "prefetch": self._prefetcher}
        return {name: s.budget.stats() if s else {"on": 0.0} for name, s in speculators.items()}

    def refresh(self, now_ms: float) -> None:
        """Fetch what is asked most and will expire before long."""
        if self._warmer is not None:
            found = self._cache.ageing(now_ms)
            small = (ageing for ageing in found if key_bytes(ageing.key) <= _MAX_QUESTION_BYTES)
            for ageing in self._warmer.propose(small):
                self._fetch(ageing.key, ageing.layers, ageing.limit, now_ms)

    def _ttl_ms(self, layers: Sequence[str]) -> int:
        """How long all of what is fetched can be served."""
        found = [self._registry.descriptor(layer) for layer in layers]
        return min((layer.ttl_ms for layer in found if layer is not None), default=0)

    def _fetch(self, key: Question, layers: Sequence[str], limit: int, now_ms: float) -> None:
        digest = question_digest(key)
        if not self._tasks.send(key, digest, layers, limit, now_ms):
            return
        self._under_way[digest] = key
        if len(self._under_way) > _MOST_UNDER_WAY:
            self._under_way.popitem(last=False)
