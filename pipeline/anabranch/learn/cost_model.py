"""What each arm would cost: a formula per arm times what was learned of its error."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp
from typing import Final

from msgspec import Struct

from anabranch.learn.profiler import PerformanceProfiler
from anabranch.learn.rows import LayerSum, PlanSum, QuerySum
from anabranch.learn.sums import Cells
from anabranch.select.decision import Arm

__all__ = ["CLIP", "CostModel", "Estimate", "load_level"]

CLIP: Final = 2.5
"""Bound of |ln(actual / estimate)|: one outlier says no more than a factor of twelve."""
GAMMA_CELL: Final = 0.98
GAMMA_ARM: Final = 0.998
PRIOR: Final = 4.0
"""Weight, in updates, of the arm's mean residual beside that of a cell."""


class Estimate(Struct, frozen=True, gc=False):
    """What an arm is expected to take. `formula_ms` is before what was learned."""

    arm: Arm
    formula_ms: float
    ms: float
    load: int


def load_level(queue_ms: float) -> int:
    """Level of a group's queue: 0 none, 1 to about 30 ms, 2 to about 120 ms, 3 beyond."""
    if queue_ms < 8:
        return 0
    return 1 if queue_ms < 30 else 2 if queue_ms < 120 else 3


def formula_ms(arm: Arm, latencies: Sequence[float], queue_ms: float) -> float:
    """Prior cost of asking layers of the given average latencies.

    SEQ = sum(l + q) + 1, PAR = max l + q + 3, DIST = .8 max l + q + 15. The constants are
    priors; what they miss is what the residual learns.
    """
    if arm == "sequential":
        return sum(latencies) + queue_ms * len(latencies) + 1
    longest = max(latencies)
    return longest + queue_ms + 3 if arm == "parallel" else 0.8 * longest + queue_ms + 15


class CostModel:
    """Learned estimates: residuals by arm, and by layers and load within an arm.

    Every update of a cell, whichever the arm, makes what its other arms said count less: an arm
    that is not taken drifts back to its prior and is tried again when that looks better.
    """

    def __init__(self, profiler: PerformanceProfiler, *, max_cells: int = 4_096) -> None:
        self._profiler = profiler
        self._arms: Cells[str] = Cells(GAMMA_ARM, 1)
        self._cells: Cells[tuple[tuple[str, ...], int]] = Cells(GAMMA_CELL, max_cells)

    def estimate(self, arm: Arm, layers: Sequence[str], queue_ms: float) -> Estimate:
        """Expected milliseconds until the last of `layers` (sorted names) is there."""
        latency = self._profiler.latency_ms
        base = formula_ms(arm, [latency(name) for name in layers], queue_ms)
        load = load_level(queue_ms)
        residual = self.residual(arm, tuple(layers), load)
        return Estimate(arm, base, base * exp(residual), load)

    def residual(self, arm: Arm, layers: tuple[str, ...], load: int) -> float:
        """Mean of ln(actual / formula): the cell's, drawn to the arm's while it has few updates."""
        row = self._arms.row("", arm)
        mean = row[1] / (row[0] + PRIOR) / 1_000 if row else 0.0
        row = self._cells.row((layers, load), arm)
        return (row[1] / 1_000 + PRIOR * mean) / (row[0] + PRIOR) if row else mean

    def accuracy(self, arm: Arm) -> float:
        """exp(-mean |ln(actual / estimate)|), 0..1; drawn to 0.5 while there are few plans."""
        row = self._arms.row("", arm)
        if not row:
            return 0.5
        return (row[0] * exp(-row[2] / row[0] / 1_000) + PRIOR * 0.5) / (row[0] + PRIOR)

    def fold_plan(self, row: PlanSum) -> None:
        """Learn from sums of one arm."""
        values = (row.count, row.residual, row.error)
        self._arms.add("", row.bucket, row.arm, values)
        self._cells.add((row.layers, row.load), row.bucket, row.arm, values)

    def fold_layer(self, row: LayerSum) -> None:
        """Single layers are the profiler's."""

    def fold_query(self, row: QuerySum) -> None:
        """Whole queries are not a matter of arms."""
