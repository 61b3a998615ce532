"""How long each layer takes, how often it succeeds, and how much it finds.

A layer's latency is the geometric mean: one call in a hundred that takes twenty times as long
moves it by 3%, the arithmetic mean by 19%.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp
from statistics import median
from typing import Final, Protocol

from anabranch.contract.rows import LayerSum, PlanSum, QuerySum
from anabranch.learn.decayed_sums import Cells

__all__ = ["LayerProfiler", "PerformanceProfiler"]

PRIOR_LATENCY_MS: Final = 50.0
"""A layer's latency while no layer has been measured at all."""
GAMMA: Final = 0.95
"""Forgetting by update: some twenty answers of a layer make its average."""
ALL: Final = "*"


class PerformanceProfiler(Protocol):
    """What is known of single layers. Latencies are without the wait in a queue."""

    @property
    def revision(self) -> int:
        """Rises whenever any of it changes."""
        ...

    def latency_ms(self, layer: str, arm: str | None = None) -> float:
        """Latency, of all arms or under one; the median of the others if unknown."""
        ...

    def success_rate(self, layer: str) -> float:
        """Share of requests that were answered, 0..1."""
        ...

    def result_count(self, layer: str) -> float:
        """Average number of items in an answer."""
        ...

    def samples(self, layer: str, arm: str | None = None) -> float:
        """Measurements behind `latency_ms`, less what is forgotten."""
        ...


class LayerProfiler:
    """The default profiler: decaying averages over all types."""

    def __init__(self, *, max_layers: int = 1_024) -> None:
        self._cells: Cells[str] = Cells(GAMMA, max_layers)
        self._arms: Cells[tuple[str, str]] = Cells(GAMMA, 4 * max_layers)
        self._typical: float | None = None
        self.revision = 0

    def fold_layer(self, row: LayerSum) -> None:
        """Learn from sums of one layer."""
        values = (row.asked, row.ok, row.timed, row.took_ln, row.items)
        self._cells.add(row.layer, row.bucket, ALL, values)
        self._arms.add((row.layer, row.arm), row.bucket, ALL, values)
        self._typical = None
        self.revision += 1

    def fold_plan(self, row: PlanSum) -> None:
        """Plans say nothing about single layers."""

    def fold_query(self, row: QuerySum) -> None:
        """Neither do whole queries."""

    def forget_after(self, bucket: int) -> None:
        """Drop what is stamped later than `bucket`."""
        self._cells.forget_after(bucket)
        self._arms.forget_after(bucket)
        self._typical = None
        self.revision += 1

    def latency_ms(self, layer: str, arm: str | None = None) -> float:
        """Latency, of all arms or under one; the median of the others if unknown."""
        row = self._row(layer, arm)
        if row and row[2] > 0:
            return _mean_ms(row)
        return self._typical_ms() if arm is None else self.latency_ms(layer)

    def success_rate(self, layer: str) -> float:
        """Share of requests that were answered; 1.0 while nothing is known."""
        row = self._row(layer, None)
        return row[1] / row[0] if row and row[0] > 0 else 1.0

    def result_count(self, layer: str) -> float:
        """Average number of items in an answer; 0.0 while nothing is known."""
        row = self._row(layer, None)
        return row[4] / row[1] if row and row[1] > 0 else 0.0

    def samples(self, layer: str, arm: str | None = None) -> float:
        """Measurements behind `latency_ms`, less what is forgotten."""
        row = self._row(layer, arm)
        return row[2] if row else 0.0

    def _row(self, layer: str, arm: str | None) -> Sequence[float]:
        if arm is None:
            return self._cells.row(layer, ALL)
        return self._arms.row((layer, arm), ALL)

    def _typical_ms(self) -> float:
        """Not zero: a layer nobody has measured would look best and be flooded."""
        if self._typical is None:
            known = [
                _mean_ms(row)
                for row in (self._cells.row(layer, ALL) for layer in self._cells.keys)
                if row and row[2] > 0
            ]
            self._typical = median(known) if known else PRIOR_LATENCY_MS
        return self._typical


def _mean_ms(row: Sequence[float]) -> float:
    return exp(row[3] / row[2] / 1_000) / 1_000
