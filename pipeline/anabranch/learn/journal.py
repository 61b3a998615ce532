"""Adds up records into rows of sums: the one way in which anything is learned."""

from __future__ import annotations

from math import log
from typing import Final

from anabranch.learn.cost_model import CLIP
from anabranch.learn.records import ExecutionTelemetry
from anabranch.learn.rows import Fold, LayerSum, PlanSum, QuerySum
from anabranch.learn.sums import BUCKET_MS

__all__ = ["Journal", "Rows"]

Rows = tuple[tuple[LayerSum, ...], tuple[PlanSum, ...], tuple[QuerySum, ...]]

MAX_ROWS: Final = 4_096
"""Rows of one kind between two batches; records that need more are dropped and counted."""


class Journal:
    """Sums of the records since the last `take`."""

    def __init__(self) -> None:
        self._layers: dict[tuple[object, ...], list[int]] = {}
        self._plans: dict[tuple[object, ...], list[int]] = {}
        self._queries: dict[tuple[object, ...], list[int]] = {}
        self.count = 0
        self.dropped = 0

    def add(self, record: ExecutionTelemetry) -> bool:
        """Count a record. False if it was dropped because too many rows are open."""
        if len(self._layers) > MAX_ROWS or len(self._plans) > MAX_ROWS:
            self.dropped += 1
            return False
        self.count += 1
        bucket = record.at_ms // BUCKET_MS
        self._add_layers(record, bucket)
        for part in record.plan:
            elapsed = _elapsed_ms(record, part.layers)
            if elapsed > 0:
                key = (bucket, record.type, part.arm, part.layers, part.load, part.novel)
                residual = _log_ratio(elapsed, part.formula_ms)
                error = abs(_log_ratio(elapsed, part.estimated_ms))
                _add(self._plans, key, (1, residual, error, int(elapsed * 1_000)))
        return True

    def take(self) -> Rows:
        """All sums, and start anew."""
        rows = (
            tuple(LayerSum(*key, *row) for key, row in self._layers.items()),  # type: ignore[arg-type]
            tuple(PlanSum(*key, *row) for key, row in self._plans.items()),  # type: ignore[arg-type]
            tuple(QuerySum(*key, *row) for key, row in self._queries.items()),  # type: ignore[arg-type]
        )
        self._layers, self._plans, self._queries = {}, {}, {}
        self.count = 0
        return rows

    def _add_layers(self, record: ExecutionTelemetry, bucket: int) -> None:
        type_, cached = record.type, 0
        for layer in record.layers:
            source = layer.source
            if source == "cache":
                cached += 1
            elif source != "none" and layer.status != "skipped":
                ok = layer.status == "ok"
                took = layer.took_ms if ok or layer.status == "timeout" else None
                timed, took_ln = (0, 0) if took is None else (1, _ln_us(took))
                values = (1, ok, timed, took_ln, layer.count, layer.used)
                _add(self._layers, (bucket, type_, source, layer.layer), values)
        names = tuple(sorted([layer.layer for layer in record.layers]))
        key = (bucket, type_, record.strategy_chosen, names)
        _add(self._queries, key, _query_values(record, cached))


def fold_rows(rows: Rows, folds: tuple[Fold, ...]) -> None:
    """Teach `folds` all rows."""
    layers, plans, queries = rows
    for fold in folds:
        for layer in layers:
            fold.fold_layer(layer)
        for plan in plans:
            fold.fold_plan(plan)
        for query in queries:
            fold.fold_query(query)


def _add(
    sums: dict[tuple[object, ...], list[int]], key: tuple[object, ...], values: tuple[int, ...]
) -> None:
    row = sums.get(key)
    if row is None:
        sums[key] = list(values)
    else:
        for index, value in enumerate(values):
            row[index] += value


def _query_values(record: ExecutionTelemetry, cached: int) -> tuple[int, ...]:
    """In the order of `QuerySum`, from `count` on."""
    total_us = int(record.total_latency_ms * 1_000)
    queue_us = int(record.queue_wait_ms * 1_000)
    gain_us = 0
    if record.shadow_ms is not None:
        gain_us = int((record.estimated_latency_ms - record.shadow_ms) * 1_000)
    return (
        1,
        record.success,
        cached,
        total_us,
        queue_us,
        record.hedges,
        record.explored,
        record.shadow is not None and record.shadow != record.strategy_chosen,
        gain_us,
    )


def _elapsed_ms(record: ExecutionTelemetry, names: tuple[str, ...]) -> float:
    """Until the last of `names` was there; 0 if one of them was never asked."""
    longest = 0.0
    for layer in record.layers:
        if layer.layer in names:
            if layer.status == "skipped":
                return 0.0
            longest = max(longest, layer.elapsed_ms)
    return longest


def _ln_us(took_ms: float) -> int:
    """ln(microseconds), in thousandths; at least one microsecond."""
    return round(1_000 * log(max(1.0, took_ms * 1_000)))


def _log_ratio(actual: float, expected: float) -> int:
    """ln(actual / expected), clipped, in thousandths."""
    ratio = log(max(actual, 0.01) / max(expected, 0.01))
    return round(1_000 * max(-CLIP, min(CLIP, ratio)))
