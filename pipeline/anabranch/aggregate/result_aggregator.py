"""Merging what several layers found into one list of items, best first.

Pure: the same parts in any order give the same answer. Sources rank cache, parallel,
distributed (sequential with parallel), which decides whose data an item carries.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, Protocol

from msgspec import Struct, structs

from anabranch.contract.bounds import MAX_SCORE
from anabranch.contract.encoded import as_text, is_nothing
from anabranch.contract.events import AnswerItem, Item, Source

__all__ = [
    "ConfidenceScorer",
    "DefaultConfidenceScorer",
    "Fusion",
    "LayerPart",
    "Merged",
    "ResultAggregator",
]

Fusion = Literal["rrf", "score"]

RRF_K: Final = 60
"""Constant of reciprocal rank fusion: Cormack, Clarke and Büttcher, SIGIR 2009."""
MUCH_LARGER: Final = 1.2
"""A fresh part with more than this many times the cached one's items replaces it."""
YOUNG_MS: Final = 1_000
"""A cached part younger than this is preferred to a fresh one of about its size."""
FRESHNESS_HALF_LIFE_MS: Final = 300_000
"""Age at which a cached part counts half: the default time to live."""
AGREEMENT_SHARE: Final = 0.25
"""How much of the confidence depends on the layers' agreement."""

_SOURCE_ORDER: Final[dict[Source, int]] = {
    "cache": 0, "parallel": 1, "sequential": 1, "distributed": 2, "none": 3,
}  # fmt: skip
_LARGEST: Final = MAX_SCORE


class LayerPart(Struct, frozen=True, gc=False):
    """What one layer (or a shard of it) found, best first, and where that came from.

    Attributes:
        age_ms: age of a cached part; None where it is not known, 0 or None if just fetched.
        complete: nothing more exists beyond these items.
        weight: the layer's say in the fusion, unless the query type sets its own.
    """

    layer: str
    source: Source
    items: Sequence[Item]
    age_ms: int | None = None
    complete: bool = False
    weight: float = 1.0


class Merged(Struct, frozen=True, gc=False):
    """The joined items. `agreement` and `confidence` are 0..1."""

    items: list[AnswerItem]
    truncated: bool
    agreement: float
    confidence: float


class ConfidenceScorer(Protocol):
    """Says how far an answer of this composition can be trusted."""

    def score(self, wanted: int, parts: Sequence[LayerPart], agreement: float) -> float:
        """A number within 0..1; `parts` has one part for each layer that is ok."""
        ...


class DefaultConfidenceScorer:
    """coverage x freshness x (3/4 + agreement/4).

    Coverage is the share of wanted layers that are there. Freshness is the mean over them of
    2^(-age / 300 s), 1 for what was just fetched. Layers that look at different things share
    few ids, so agreement raises confidence rather than deciding it.
    """

    def score(self, wanted: int, parts: Sequence[LayerPart], agreement: float) -> float:
        """See the class."""
        if not parts or wanted < 1:
            return 0.0
        coverage = min(1.0, len(parts) / wanted)
        freshness = sum(map(_freshness, parts)) / len(parts)
        return coverage * freshness * (1.0 - AGREEMENT_SHARE + AGREEMENT_SHARE * agreement)


class ResultAggregator:
    """Merges parts: conflicts, shards, duplicates, order, agreement and confidence."""

    def __init__(self, confidence_scorer: ConfidenceScorer | None = None) -> None:
        self._scorer = confidence_scorer or DefaultConfidenceScorer()

    def aggregate(
        self,
        parts: Sequence[LayerPart],
        *,
        wanted: int,
        limit: int,
        fusion: Fusion = "rrf",
        weights: Mapping[str, float] | None = None,
    ) -> Merged:
        """One list of at most `limit` items out of the parts of the layers that are ok.

        `rrf` gives an item the sum of weight / (60 + rank) over its layers. `score` gives it
        the largest weight x score (CombMAX, Fox and Shaw 1994), for layers whose scores are
        on one scale. Ties go by id. NaN counts as 0, an infinite score as the largest there is.

        Agreement is, averaged over the items, the share of the other layers that found it too
        (of two layers: the Jaccard index of their ids). Only layers that found something
        count; with fewer than two of them it is 1.0, for nobody disagrees.
        """
        chosen = self._one_per_layer(parts)
        entries = _fuse(chosen, fusion, weights or {})
        agreement = _agreement(entries, sum(bool(part.items) for part in chosen))
        return Merged(
            items=[_answer_item(entry) for entry in entries[:limit]],
            truncated=len(entries) > limit or not all(part.complete for part in chosen),
            agreement=agreement,
            confidence=self.confidence(chosen, wanted=wanted, agreement=agreement),
        )

    def confidence(self, parts: Sequence[LayerPart], *, wanted: int, agreement: float) -> float:
        """How far these parts can be trusted now, 0..1; one for each layer that is ok."""
        return min(1.0, max(0.0, _finite(self._scorer.score(wanted, parts, agreement))))

    def resolve(self, cached: LayerPart, fresh: LayerPart) -> LayerPart:
        """Which of two parts of one layer counts.

        Fresh if it has over a fifth more items; else cache if younger than 1,000 ms; else fresh.
        """
        if len(fresh.items) > MUCH_LARGER * len(cached.items):
            return fresh
        young = cached.age_ms is not None and cached.age_ms < YOUNG_MS
        return cached if young else fresh

    def _one_per_layer(self, parts: Sequence[LayerPart]) -> list[LayerPart]:
        """Shards merged and conflicts resolved, in the order of sources."""
        if len({part.layer for part in parts}) == len(parts):
            return sorted(parts, key=_source_then_layer)
        layers: dict[str, list[LayerPart]] = {}
        for part in parts:
            layers.setdefault(part.layer, []).append(part)
        chosen = [same[0] if len(same) == 1 else self._settle(same) for same in layers.values()]
        return sorted(chosen, key=_source_then_layer)

    def _settle(self, same: Iterable[LayerPart]) -> LayerPart:
        ordered = sorted(same, key=_source_then_layer)
        cached = [part for part in ordered if part.source == "cache"]
        fresh = [part for part in ordered if part.source != "cache"]
        if cached and fresh:
            return self.resolve(_merge_shards(cached), _merge_shards(fresh))
        return _merge_shards(cached or fresh)


_Entry = list[Any]
"""[-score, id, data, layer, layer...]: sorts best first, then by id, which is unique."""


def _fuse(parts: Sequence[LayerPart], fusion: Fusion, weights: Mapping[str, float]) -> list[_Entry]:
    """Every item once, best first. Its data is the first source's that has any."""
    entries: dict[str, _Entry] = {}
    by_rank = fusion == "rrf"
    for part in parts:
        layer = part.layer
        weight = _finite(weights.get(layer, part.weight))
        for rank, item in enumerate(part.items, RRF_K + 1):
            score = weight / rank if by_rank else _finite(weight * _finite(item.score))
            entry = entries.get(item.id)
            if entry is None:
                entries[item.id] = [-score, item.id, item.data, layer]
            elif entry[-1] != layer:  # a layer counts once for an item, by its best rank
                entry[0] = entry[0] - score if by_rank else min(entry[0], -score)
                entry.append(layer)
                if is_nothing(entry[2]):
                    entry[2] = item.data
            elif not by_rank:
                entry[0] = min(entry[0], -score)
    return sorted(entries.values())


def _answer_item(entry: _Entry) -> AnswerItem:
    layers = (entry[3],) if len(entry) == 4 else tuple(sorted(entry[3:]))
    return AnswerItem(layers, entry[1], _finite(-entry[0]), entry[2])


def _agreement(entries: Sequence[_Entry], layers: int) -> float:
    if layers < 2:
        return 1.0
    others = sum(map(len, entries)) - 4 * len(entries)
    return others / (len(entries) * (layers - 1))


def _merge_shards(parts: Sequence[LayerPart]) -> LayerPart:
    """One part of several of the same layer: all their items by score, as old as the oldest."""
    if len(parts) == 1:
        return parts[0]
    items = [item for part in parts for item in part.items]
    ages = [part.age_ms for part in parts]
    known = [age for age in ages if age is not None]
    return structs.replace(
        parts[0],
        items=sorted(items, key=_best_first),
        age_ms=max(known) if len(known) == len(ages) else None,
        complete=all(part.complete for part in parts),
        weight=max(part.weight for part in parts),
    )


def _best_first(item: Item) -> tuple[float, str, str]:
    return (-_finite(item.score), item.id, as_text(item.data))


def _source_then_layer(part: LayerPart) -> tuple[int, str]:
    return (_SOURCE_ORDER[part.source], part.layer)


def _freshness(part: LayerPart) -> float:
    if part.source != "cache":
        return 1.0
    age_ms = FRESHNESS_HALF_LIFE_MS if part.age_ms is None else max(0, part.age_ms)
    return float(2.0 ** (-age_ms / FRESHNESS_HALF_LIFE_MS))


def _finite(number: float) -> float:
    """The number itself; 0 for NaN and minus zero; the largest there is for an infinite one."""
    if -_LARGEST <= number <= _LARGEST:
        return number + 0.0
    return 0.0 if math.isnan(number) else math.copysign(_LARGEST, number)
