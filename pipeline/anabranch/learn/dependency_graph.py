"""Which layers go together, which of them pay, and what asking them together gains."""

from __future__ import annotations

from collections.abc import Container, Sequence
from itertools import combinations
from typing import Final
from zlib import crc32

from msgspec import Struct

from anabranch.contract.rows import LayerSum, PlanSum, QuerySum
from anabranch.learn.decayed_sums import Cell, Cells
from anabranch.learn.folding import MAX_TOGETHER
from anabranch.learn.profiler import PerformanceProfiler

__all__ = ["DependencyGraph", "LayerSelection", "SelectionContext", "draw"]

MAX_BENEFIT: Final = 5.0
COUPLED: Final = 0.5
"""Coupling from which two layers count as going together."""
COARSE: Final = 60
"""Habits change slowly: the graph's buckets are this many times wider."""
ANY: Final = "*"
MAX_TYPES: Final = 4_096
MAX_SETS: Final = 256
"""Sets of layers from which pairs are counted: those wanted most."""


class SelectionContext(Struct, frozen=True, gc=False):
    """What a choice of layers depends on: the query's id and its type's default layers."""

    query: str
    default: tuple[str, ...]


class LayerSelection(Struct, frozen=True, gc=False):
    """Layers to ask. `explored` is the left-out layer that is tried all the same, if any."""

    layers: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    explored: str | None = None


def draw(query: str, salt: int) -> float:
    """A number in [0, 1) that depends on nothing but the query's id and `salt`.

    CRC-32 alone would correlate draws of different salts, hence the multiplications
    (constants of splitmix64).
    """
    bits = (crc32(query.encode()) + salt * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    bits = ((bits ^ bits >> 30) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    bits = ((bits ^ bits >> 27) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return ((bits ^ bits >> 31) >> 11) / 9007199254740992.0


class DependencyGraph:
    """Learns from answers which layers appear together and which contribute.

    Args:
        profiler: latencies of single layers.
        min_samples: observations before anything is recommended.
        explore: share of queries that also ask one left-out layer.
        min_use: share of a layer's answers that must contribute for it to be selected.
        own_types: the configured ones: what was learned of them is kept when others must go.
    """

    def __init__(
        self,
        profiler: PerformanceProfiler,
        min_samples: int = 5,
        *,
        explore: float = 0.02,
        min_use: float = 0.05,
        max_cells: int = 4_096,
        own_types: Container[str] = (),
    ) -> None:
        self.min_samples = min_samples
        self._profiler = profiler
        self._explore = explore
        self._min_use = min_use
        self._sets = Cell(0.9995)
        self._use: Cells[tuple[str, str]] = Cells(
            0.98, max_cells, is_own=lambda key: key[0] in own_types
        )
        self._types: dict[str, int] = {}
        self._counted: tuple[dict[str, float], dict[tuple[str, str], float], float] | None = None

    def fold_layer(self, row: LayerSum) -> None:
        """Learn which layers contribute to answers of a type."""
        self._use.add((row.type, row.layer), row.bucket // COARSE, ANY, (row.ok, row.used))

    def fold_query(self, row: QuerySum) -> None:
        """Learn which layers are wanted together."""
        if 0 < len(row.layers) <= MAX_TOGETHER:
            self._add_set(row)
        if len(self._types) < MAX_TYPES or row.type in self._types:
            self._types[row.type] = self._types.get(row.type, 0) + row.count

    def fold_plan(self, row: PlanSum) -> None:
        """Arms are the cost model's."""

    def forget_after(self, bucket: int) -> None:
        """Drop what is stamped later than `bucket`."""
        self._sets.forget_after(bucket // COARSE)
        self._use.forget_after(bucket // COARSE)
        self._counted = None

    def get_layer_selection(self, query_type: str, context: SelectionContext) -> list[str]:
        """Layers to ask for a query that names none."""
        return list(self.select_layers(query_type, context).layers)

    def select_layers(self, query_type: str, context: SelectionContext) -> LayerSelection:
        """The type's layers less those that hardly ever contribute; at least one.

        A pure function of what was learned and the query's id.
        """
        shares = {layer: self._use_share(query_type, layer) for layer in context.default}
        kept = [layer for layer, share in shares.items() if share >= self._min_use]
        if not kept and shares:
            kept = [max(shares, key=lambda layer: shares[layer])]
        left_out = tuple(layer for layer in context.default if layer not in kept)
        if not left_out or draw(context.query, 1) >= self._explore:
            return LayerSelection(tuple(kept), left_out)
        tried = left_out[int(draw(context.query, 2) * len(left_out))]
        rest = tuple(layer for layer in left_out if layer != tried)
        return LayerSelection((*kept, tried), rest, tried)

    @property
    def revision(self) -> int:
        """Rises whenever a parallelization benefit may have changed."""
        return self._profiler.revision

    def knows_type(self, query_type: str) -> bool:
        """Whether at least `min_samples` queries of the type were seen."""
        return self._types.get(query_type, 0) >= self.min_samples

    def get_parallelization_benefit(self, layers: Sequence[str]) -> float:
        """Mean speed-up of the pairs of `layers` when asked at once, 1.0 to 5.0.

        Of a pair: both one after the other / the slower when both run at once, each as measured
        under that arm, where it was.
        """
        names = sorted(set(layers))
        if len(names) < 2:
            return 1.0
        times = [
            (self._latency(name, "sequential"), self._latency(name, "parallel")) for name in names
        ]
        gains = [(a[0] + b[0]) / max(a[1], b[1], 0.001) for a, b in combinations(times, 2)]
        return min(MAX_BENEFIT, max(1.0, sum(gains) / len(gains)))

    def get_cached_results_benefit(self, layers: Sequence[str]) -> float:
        """How much caching this combination would pay, 0 to 1.

        success rate x frequency x result count / query cost in ms (the original's worthiness).
        """
        names = sorted(set(layers))
        frequency = self._frequency(names)
        if not names or not frequency:
            return 0.0
        profile = self._profiler
        success = sum(profile.success_rate(name) for name in names) / len(names)
        count = sum(profile.result_count(name) for name in names)
        cost = sum(profile.latency_ms(name) for name in names)
        return min(1.0, success * frequency * count / max(cost, 0.001))

    def get_layer_coupling_score(self, layer1: str, layer2: str) -> float:
        """Queries that wanted both, as a share of those that wanted either, 0 to 1."""
        single, pairs, _ = self._counts()
        if layer1 == layer2:
            return 1.0
        both = pairs.get((min(layer1, layer2), max(layer1, layer2)), 0.0)
        either = single.get(layer1, 0.0) + single.get(layer2, 0.0) - both
        return both / either if either >= self.min_samples else 0.0

    def get_independent_layers(self, layers: Sequence[str]) -> list[str]:
        """Those of `layers` that are coupled to none of the others."""
        names = list(dict.fromkeys(layers))
        return [
            name
            for name in names
            if all(
                self.get_layer_coupling_score(name, other) < COUPLED
                for other in names
                if other != name
            )
        ]

    def stats(self) -> dict[str, float]:
        """Size of what was learned."""
        single, pairs, total = self._counts()
        return {
            "layers": len(single),
            "pairs": len(pairs),
            "types": len(self._types),
            "queries": total,
        }

    def _add_set(self, row: QuerySum) -> None:
        self._sets.add(row.bucket // COARSE, "\n".join(row.layers), (row.count,))
        self._counted = None

    def _use_share(self, query_type: str, layer: str) -> float:
        row = self._use.row((query_type, layer), ANY)
        return row[1] / row[0] if row and row[0] >= self.min_samples else 1.0

    def _latency(self, layer: str, arm: str) -> float:
        enough = self._profiler.samples(layer, arm) >= self.min_samples
        return self._profiler.latency_ms(layer, arm if enough else None)

    def _frequency(self, names: Sequence[str]) -> float:
        """Share of queries that want all of `names`."""
        wanted = set(names)
        found = total = 0.0
        for label, row in self._sets.read().items():
            total += row[0]
            if wanted.issubset(label.split("\n")):
                found += row[0]
        return found / total if total >= self.min_samples else 0.0

    def _counts(self) -> tuple[dict[str, float], dict[tuple[str, str], float], float]:
        if self._counted is None:
            single: dict[str, float] = {}
            pairs: dict[tuple[str, str], float] = {}
            total = 0.0
            sets = [(label, row[0]) for label, row in self._sets.read().items()]
            most_wanted = sorted(sets, key=lambda found: (-found[1], found[0]))[:MAX_SETS]
            for label, count in sorted(most_wanted):
                names = label.split("\n")
                total += count
                for name in names:
                    single[name] = single.get(name, 0.0) + count
                for pair in combinations(names, 2):
                    pairs[pair] = pairs.get(pair, 0.0) + count
            self._counted = single, pairs, total
        return self._counted
