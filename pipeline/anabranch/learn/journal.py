"""Adds up records into rows of sums: the one way in which anything is learned."""

from __future__ import annotations

from math import log
from typing import Any, Final

from anabranch.learn.cost_model import CLIP
from anabranch.learn.records import ExecutionTelemetry, LayerOutcome
from anabranch.learn.rows import LayerSum, PlanSum, QuerySum, Rows
from anabranch.learn.sums import BUCKET_MS

__all__ = ["MAX_ROWS", "Journal"]

MAX_ROWS: Final = 1_024
"""Rows of one kind between two batches; records that would need more are dropped and counted."""

Sums = dict[tuple[Any, ...], list[int]]


class Journal:
    """Sums of the records since the last `take`. Written for speed: it runs for each answer."""

    def __init__(self) -> None:
        self._layers: Sums = {}
        self._plans: Sums = {}
        self._queries: Sums = {}
        self.count = 0
        self.dropped = 0
        """Records dropped since the last `take`."""

    def add(self, record: ExecutionTelemetry) -> None:
        """Count a record, or drop it if too many rows are open."""
        if max(len(self._layers), len(self._plans), len(self._queries)) >= MAX_ROWS:
            self.dropped += 1
            return
        self.count += 1
        bucket, kind = record.at_ms // BUCKET_MS, record.type
        for layer in record.layers:
            source = layer.source
            if source != "cache" and source != "none" and layer.status != "skipped":
                _add_layer(self._layers, (bucket, kind, source, layer.layer), layer)
        for part in record.plan:
            elapsed = _elapsed_ms(record.layers, part.layers)
            if elapsed > 0:
                row = self._plans.setdefault(
                    (bucket, kind, part.arm, part.layers, part.load, part.novel), [0, 0, 0, 0]
                )
                row[0] += 1
                row[1] += _log_ratio(elapsed, part.formula_ms)
                row[2] += abs(_log_ratio(elapsed, part.estimated_ms))
                row[3] += int(elapsed * 1_000)
        names = tuple(sorted([layer.layer for layer in record.layers]))
        _add_query(self._queries, (bucket, kind, record.strategy_chosen, names), record)

    def take(self) -> Rows:
        """All sums, and start anew."""
        rows = Rows(
            tuple([LayerSum(*key, *row) for key, row in self._layers.items()]),
            tuple([PlanSum(*key, *row) for key, row in self._plans.items()]),
            tuple([QuerySum(*key, *row) for key, row in self._queries.items()]),
        )
        self._layers, self._plans, self._queries = {}, {}, {}
        self.count = self.dropped = 0
        return rows


def _add_layer(sums: Sums, key: tuple[Any, ...], layer: LayerOutcome) -> None:
    """Values in the order of `LayerSum`."""
    row = sums.get(key)
    if row is None:
        row = sums[key] = [0] * 8
    row[0] += 1
    ok = layer.status == "ok"
    took = layer.took_ms
    if took is not None and (ok or layer.status == "timeout"):
        row[2] += 1
        row[3] += round(1_000 * log(took * 1_000)) if took > 0.001 else 0
    if ok:
        row[1] += 1
        row[4] += layer.count
        row[5] += layer.used
        if layer.changed is not None:
            row[6] += 1
            row[7] += layer.changed


def _add_query(sums: Sums, key: tuple[Any, ...], record: ExecutionTelemetry) -> None:
    """Values in the order of `QuerySum`."""
    row = sums.get(key)
    if row is None:
        row = sums[key] = [0] * 9
    row[0] += 1
    row[1] += record.success
    if record.cache_hit:
        row[2] += sum([layer.source == "cache" for layer in record.layers])
    row[3] += int(record.total_latency_ms * 1_000)
    row[4] += int(record.queue_wait_ms * 1_000)
    row[5] += record.hedges
    row[6] += record.explored
    if record.shadow_ms is not None:
        row[7] += record.shadow != record.strategy_chosen
        row[8] += int((record.estimated_latency_ms - record.shadow_ms) * 1_000)


def _elapsed_ms(layers: tuple[LayerOutcome, ...], names: tuple[str, ...]) -> float:
    """Until the last of `names` was there; 0 if one of them was never asked."""
    longest = 0.0
    for layer in layers:
        if layer.layer in names:
            if layer.status == "skipped":
                return 0.0
            if layer.elapsed_ms > longest:
                longest = layer.elapsed_ms
    return longest


def _log_ratio(actual: float, expected: float) -> int:
    """ln(actual / expected), clipped, in thousandths."""
    ratio = log(max(actual, 0.01) / max(expected, 0.01))
    return round(1_000 * max(-CLIP, min(CLIP, ratio)))
