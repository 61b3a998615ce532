"""What the simulated layers hold, and since when: their content changes in the course of a run.

A version of a layer's content is a pure function of the question. It is `valid` from its change
until, some time after the next change, an invalidation was ordered; whoever asks later than that
must not be told of it any more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from msgspec import structs

from anabranch.contract.events import Item, Query
from anabranch.layers.api import LayerSpec, Request, Result
from anabranch_synthetic import Synthetic, SyntheticConfig, expected_items

__all__ = ["LAYERS", "Truth"]

LAYERS: Final[dict[str, tuple[str, int, float, dict[str, Any]]]] = {
    "semantic": ("io", 1, 20.0, {"items": 10}),
    "graph": ("io", 1, 60.0, {"items": 4, "error_rate": 0.05}),
    "episodic": ("cpu", 1, 120.0, {"items": 25, "hang_rate": 0.05}),
    "procedural": ("cpu", 2, 40.0, {"items": 6}),
}
"""Group, shards, median latency in milliseconds, and the rest."""


class Truth:
    """The content of all layers, over time.

    Args:
        slower: factor of all latencies.
    """

    def __init__(self, slower: float) -> None:
        self._slower = slower
        self._since: dict[str, list[float]] = {name: [0.0] for name in LAYERS}
        self._until: dict[str, list[float]] = defaultdict(list)

    def change(self, layer: str, now_ms: float) -> None:
        """From now on the layer says something else."""
        self._since[layer].append(now_ms)

    def invalidated(self, layer: str, now_ms: float) -> None:
        """All that it said before its last change is ordered to be forgotten."""
        missing = len(self._since[layer]) - 1 - len(self._until[layer])
        self._until[layer] += [now_ms] * missing

    def version(self, layer: str) -> int:
        """The present version."""
        return len(self._since[layer]) - 1

    def may_say(self, layer: str, asked_ms: float, answered_ms: float) -> list[int]:
        """Versions that an answer may stem from."""
        until = [*self._until[layer], *[float("inf")] * len(self._since[layer])]
        return [
            version
            for version, since_ms in enumerate(self._since[layer])
            if since_ms <= answered_ms and asked_ms <= until[version]
        ]

    def items_of(self, layer: str) -> int:
        """How many items each shard of a layer has for any question."""
        return int(LAYERS[layer][3]["items"])

    def shards_of(self, layer: str) -> int:
        return LAYERS[layer][1]

    def content(self, layer: str, shard: int, version: int, query: Query) -> list[Item]:
        """All that a shard of a layer has for a question, best first."""
        request = Request(
            query.type, query.params, query.scope, self.items_of(layer), 0.0, 0.0, shard,
            self.shards_of(layer),
        )  # fmt: skip
        return expected_items(self._synthetic(layer, 0), _asked(request, version))

    def layers_of(self, group: str, seed: int) -> list[LayerSpec]:
        """The layers of a worker of that group; the seed is that worker's own."""
        return [
            LayerSpec(_Changing(self._synthetic(name, seed), self), group=group, shards=shards)
            for name, (its_group, shards, _, _) in LAYERS.items()
            if its_group == group
        ]

    def _synthetic(self, name: str, seed: int) -> Synthetic:
        _, _, typical_ms, how = LAYERS[name]
        latency_ms = self._slower * typical_ms
        config = SyntheticConfig(
            latency="lognormal", latency_ms=latency_ms, item_bytes=8, seed=seed, **how
        )
        return Synthetic(name, config)


class _Changing:
    """A synthetic layer whose content is that of the moment when it was asked."""

    def __init__(self, layer: Synthetic, truth: Truth) -> None:
        self.name = layer.name
        self._layer = layer
        self._truth = truth

    async def ask(self, request: Request) -> Result | Sequence[Item]:
        version = self._truth.version(self.name)
        result: Result = await self._layer.ask(_asked(request, version))  # type: ignore[misc]
        return result


def _asked(request: Request, version: int) -> Request:
    return structs.replace(request, params=request.params | {"version": version})
