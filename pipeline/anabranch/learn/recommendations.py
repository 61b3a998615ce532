"""What should be set otherwise: each names the setting, both values and the evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from msgspec import Struct

from anabranch.learn.analytics import MIN_SAMPLES, Analytics

__all__ = ["Recommendation", "recommend"]

REFRESHES: Final = 20
"""Refreshes of a layer before its TTL is judged."""
SAME, OTHER = 0.05, 0.5
"""Share of refreshes that changed something: below, the TTL is too short; above, too long."""
WAIT: Final = 0.25
"""Share of an answer's time spent in queues above which more slots are proposed."""
GAIN: Final = 0.05
"""Least share of the time that a change must save."""


class Recommendation(Struct, frozen=True, gc=False):
    """`setting` is the key in the configuration."""

    setting: str
    present: Any
    proposed: Any
    evidence: str


def recommend(analytics: Analytics, settings: Mapping[str, Any]) -> list[Recommendation]:
    """Proposals for those `settings` (present values by key) that the evidence contradicts."""
    rules: tuple[Callable[[Analytics, Mapping[str, Any]], Iterator[Recommendation]], ...]
    rules = (_mode, _distributed_threshold, _ttl, _slots)
    return [found for rule in rules for found in rule(analytics, settings)]


def _mode(analytics: Analytics, settings: Mapping[str, Any]) -> Iterator[Recommendation]:
    total, key = analytics.totals(), "select.mode"
    if total is None or settings.get(key) != "shadow" or total.shadow < MIN_SAMPLES:
        return
    share = total.shadow_gain_us / total.total_us if total.total_us else 0.0
    if share > GAIN:
        yield Recommendation(
            key,
            "shadow",
            "learned",
            f"{total.shadow:.0f} of {total.count:.0f} plans would have been others, and "
            f"{share:.0%} of the time saved",
        )


def _distributed_threshold(
    analytics: Analytics, settings: Mapping[str, Any]
) -> Iterator[Recommendation]:
    """The threshold under which the layer sets measured both ways would have cost least."""
    key = "select.distributed_threshold"
    sets = [
        (means["sequential"][1], means["distributed"][1], sum(n for n, _ in means.values()))
        for means in analytics.layer_sets().values()
        if "sequential" in means and "distributed" in means
    ]
    if key not in settings or not sets:
        return
    present = float(settings[key])
    proposed = min(_between([alone for alone, *_ in sets]), key=lambda at: _cost(sets, at))
    before, after = _cost(sets, present), _cost(sets, proposed)
    if after < before * (1 - GAIN):
        yield Recommendation(
            key,
            present,
            round(proposed, 1),
            f"over {len(sets)} layer sets measured both ways the mean falls from {before:.0f} "
            f"to {after:.0f} ms",
        )


def _ttl(analytics: Analytics, settings: Mapping[str, Any]) -> Iterator[Recommendation]:
    for name, layer in sorted(analytics.layers().items()):
        key = f"layers.{name}.ttl_ms"
        if key not in settings or layer.refreshed < REFRESHES:
            continue
        share = layer.changed / layer.refreshed
        if SAME <= share <= OTHER:
            continue
        present = int(settings[key])
        proposed = present * 2 if share < SAME else present // 2
        evidence = f"{share:.0%} of {layer.refreshed:.0f} refreshes found other content"
        yield Recommendation(key, present, proposed, evidence)


def _slots(analytics: Analytics, settings: Mapping[str, Any]) -> Iterator[Recommendation]:
    total, key = analytics.totals(), "worker.slots"
    if key not in settings or total is None or total.count < REFRESHES or not total.total_us:
        return
    share = total.queue_us / total.total_us
    if share > WAIT:
        present = int(settings[key])
        evidence = f"{share:.0%} of the time of {total.count:.0f} answers was spent in queues"
        yield Recommendation(key, present, present + max(1, present // 2), evidence)


def _cost(sets: Sequence[tuple[float, float, float]], threshold: float) -> float:
    """Mean ms if sets that cost more than `threshold` one after the other are spread."""
    plans = sum(count for *_, count in sets)
    spent = sum(count * (spread if alone > threshold else alone) for alone, spread, count in sets)
    return spent / plans


def _between(costs: Sequence[float]) -> list[float]:
    """A threshold below all costs, between each two, and above all."""
    ordered = sorted(costs)
    middles = [(low + high) / 2 for low, high in pairwise(ordered)]
    return [ordered[0] * 0.9, *middles, ordered[-1] * 1.1]
