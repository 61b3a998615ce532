"""Adds up records into rows of sums: the one way in which anything is learned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import log
from typing import Any, Final

from anabranch.contract.bounds import MAX_SPAN_MS, clamped_ms
from anabranch.contract.plan import PlanPart
from anabranch.contract.rows import LayerSum, PlanSum, QuerySum, Rows
from anabranch.contract.telemetry import ExecutionTelemetry, LayerOutcome
from anabranch.learn.cost_model import CLIP
from anabranch.learn.decayed_sums import BUCKET_MS
from anabranch.learn.folding import MAX_TOGETHER

__all__ = ["CachedKey", "sum_up", "sum_up_cached"]

CachedKey = tuple[int, str, tuple[str, ...]]
"""(bucket, type, wanted layers) of queries that the cache answered whole."""
Sums = dict[tuple[Any, ...], list[int]]

NOT_ASKED: Final = frozenset(("cache", "none"))


def sum_up(records: Iterable[ExecutionTelemetry]) -> Rows:
    """One row for each layer, arm and query type that occurs in `records`, per bucket.

    Keys and values below stand in the order of the rows' fields. Written for speed: it is the
    larger part of what an answer costs in learning.
    """
    layers: Sums = {}
    plans: Sums = {}
    queries: Sums = {}
    for record in records:
        bucket, kind, outcomes = record.at_ms // BUCKET_MS, record.type, record.layers
        for layer in outcomes:
            source = layer.source
            if source not in NOT_ASKED and layer.status != "skipped" and not layer.shared:
                _add_layer(layers, (bucket, kind, source, layer.layer), layer)
        for part in record.plan:
            elapsed = _elapsed_ms(outcomes, part.layers)
            if elapsed > 0:
                key = (bucket, kind, part.arm, part.layers, part.load, part.novel)
                _add_plan(plans, key, part, elapsed)
        names = _wanted(outcomes)
        _add_query(queries, (bucket, kind, record.strategy_chosen, names), record)
    return Rows(
        tuple([LayerSum(*key, *row) for key, row in layers.items()]),
        tuple([PlanSum(*key, *row) for key, row in plans.items()]),
        tuple([QuerySum(*key, *row) for key, row in queries.items()]),
    )


def sum_up_cached(counts: Mapping[CachedKey, int]) -> Rows:
    """Rows of queries that took no time and asked nobody; some may have the same key."""
    return Rows(
        queries=tuple(
            [
                QuerySum(bucket, kind, "cache", _sorted(layers), count, count, count * len(layers))
                for (bucket, kind, layers), count in counts.items()
            ]
        )
    )


def _wanted(layers: tuple[LayerOutcome, ...]) -> tuple[str, ...]:
    return _sorted([layer.layer for layer in layers])


def _sorted(names: Sequence[str]) -> tuple[str, ...]:
    """The layers of a query; none if there are so many that nothing is learned of it."""
    return tuple(sorted(names)) if len(names) <= MAX_TOGETHER else ()


def _add_layer(sums: Sums, key: tuple[Any, ...], layer: LayerOutcome) -> None:
    row = sums.get(key)
    if row is None:
        row = sums[key] = [0] * 8
    row[0] += 1
    status, took = layer.status, layer.took_ms
    if took is not None and status != "error":
        row[2] += 1
        if took > 0.001:
            row[3] += int(1_000 * log((took if took < MAX_SPAN_MS else MAX_SPAN_MS) * 1_000))
    if status == "ok":
        row[1] += 1
        row[4] += layer.count
        row[5] += layer.used
        if layer.changed is not None:
            row[6] += 1
            row[7] += layer.changed


def _add_plan(sums: Sums, key: tuple[Any, ...], part: PlanPart, elapsed_ms: float) -> None:
    row = sums.get(key)
    if row is None:
        row = sums[key] = [0] * 4
    actual = log(elapsed_ms)
    row[0] += 1
    row[1] += _log_ratio(actual, part.formula_ms)
    row[2] += abs(_log_ratio(actual, part.estimated_ms))
    row[3] += int(clamped_ms(elapsed_ms) * 1_000)


def _add_query(sums: Sums, key: tuple[Any, ...], record: ExecutionTelemetry) -> None:
    row = sums.get(key)
    if row is None:
        row = sums[key] = [0] * 9
    row[0] += 1
    row[1] += record.success
    if record.cache_hit:
        row[2] += sum([layer.source == "cache" for layer in record.layers])
    row[3] += int(clamped_ms(record.total_latency_ms) * 1_000)
    row[4] += int(clamped_ms(record.queue_wait_ms) * 1_000)
    row[5] += record.hedges
    row[6] += record.explored
    if record.shadow_ms is not None:
        row[7] += record.shadow != record.strategy_chosen
        gain_ms = clamped_ms(record.estimated_latency_ms) - clamped_ms(record.shadow_ms)
        row[8] += int(gain_ms * 1_000)


def _elapsed_ms(layers: tuple[LayerOutcome, ...], names: tuple[str, ...]) -> float:
    """Until the last of `names` was there; 0 if one of them was never asked for this query."""
    longest = 0.0
    for layer in layers:
        if layer.layer in names:
            if layer.status == "skipped" or layer.shared:
                return 0.0
            if layer.elapsed_ms > longest:
                longest = layer.elapsed_ms
    return longest


def _log_ratio(actual: float, expected_ms: float) -> int:
    """ln(actual / expected), clipped, in thousandths; `actual` is a logarithm already."""
    if not expected_ms > 0:
        return 0
    ratio = actual - log(expected_ms)
    return int(1_000 * (CLIP if ratio > CLIP else -CLIP if ratio < -CLIP else ratio))
