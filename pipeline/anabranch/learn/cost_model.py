"""What each arm would cost: a formula per arm times what was learned of its error."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, pi
from typing import Final, NamedTuple

from msgspec import Struct

from anabranch.contract.bounds import clamped_ms
from anabranch.contract.plan import Arm, PlanPart
from anabranch.contract.rows import LayerSum, PlanSum, QuerySum
from anabranch.learn.decayed_sums import Cells

__all__ = ["CLIP", "CostModel", "CostPriors", "load_level"]

CLIP: Final = 2.5
"""Bound of |ln(actual / estimate)|: one outlier says no more than a factor of twelve."""
GAMMA_CELL: Final = 0.98
GAMMA_ARM: Final = 0.998
LN2: Final = 0.693
PRIOR: Final = 8.0
"""Weight, in updates, of the arm's mean residual beside that of a cell."""


class CostPriors(Struct, frozen=True, gc=False):
    """Constants of the formulas: where learning starts from.

    SEQ = sum(l + w q) + 1, PAR = max l + w q + 3, DIST = .8 max l + w q + 15, with l the latency
    of a layer and q the wait in its group's queue.
    """

    sequential_ms: float = 1.0
    sequential_wait: float = 1.0
    parallel_ms: float = 3.0
    parallel_wait: float = 1.0
    distributed_ms: float = 15.0
    distributed_wait: float = 1.0
    distributed_share: float = 0.8

    def cost_ms(self, arm: Arm, latencies: Sequence[float], queue_ms: float) -> float:
        """Milliseconds until the last of the layers is there."""
        if arm == "sequential":
            waits = self.sequential_wait * queue_ms * len(latencies)
            return sum(latencies) + waits + self.sequential_ms
        if arm == "parallel":
            return max(latencies) + self.parallel_wait * queue_ms + self.parallel_ms
        longest = self.distributed_share * max(latencies)
        return longest + self.distributed_wait * queue_ms + self.distributed_ms


def load_level(queue_ms: float) -> int:
    """Level of a group's queue: 0 below 8 ms, 1 below 30, 2 below 120, 3 beyond."""
    if queue_ms < 30:
        return 0 if queue_ms < 8 else 1
    return 2 if queue_ms < 120 else 3


class _ArmMeans(NamedTuple):
    residual: float
    accuracy: float
    risk: float


class CostModel:
    """Learned estimates: residuals by arm, and by layers and load within an arm.

    Every update of a cell, whichever the arm, makes what its other arms said count less: an arm
    that is not taken drifts back to its prior and is tried again when that looks better.

    Attributes:
        revision: rises whenever an estimate may have changed.
    """

    def __init__(self, priors: CostPriors | None = None, *, max_cells: int = 4_096) -> None:
        self._priors = priors if priors is not None else CostPriors()
        self._arms: Cells[str] = Cells(GAMMA_ARM, 1)
        self._cells: Cells[tuple[tuple[str, ...], int]] = Cells(GAMMA_CELL, max_cells)
        self._means: dict[Arm, _ArmMeans] = {}
        self.revision = 0

    def part(
        self,
        group: str,
        arm: Arm,
        layers: tuple[str, ...],
        latencies: Sequence[float],
        queue_ms: float,
        novel: bool,
    ) -> PlanPart:
        """An arm for `layers` (sorted names, with their latencies) and what it would take."""
        formula = clamped_ms(self._priors.cost_ms(arm, latencies, queue_ms))
        load = load_level(queue_ms)
        estimate = clamped_ms(formula * exp(self.residual(arm, layers, load)))
        return PlanPart(group, arm, layers, load, formula, estimate, novel)

    def residual(self, arm: Arm, layers: tuple[str, ...], load: int) -> float:
        """Mean of ln(actual / formula): the cell's, drawn to the arm's while it has few updates."""
        mean = (self._means.get(arm) or self._arm(arm)).residual
        row = self._cells.row((layers, load), arm)
        return (row[1] / 1_000 + PRIOR * mean) / (row[0] + PRIOR) if row else mean

    def accuracy(self, arm: Arm) -> float:
        """exp(-mean |ln(actual / estimate)|), 0..1; drawn to 0.5 while there are few plans."""
        return self._arm(arm).accuracy

    def risk(self, arm: Arm) -> float:
        """Factor from an arm's median to its mean: what an arm costs whose estimates are poor.

        Of a lognormal with mean absolute error e, sigma is e sqrt(pi/2) and the factor
        exp(sigma^2 / 2).
        """
        return (self._means.get(arm) or self._arm(arm)).risk

    def fold_plan(self, row: PlanSum) -> None:
        """Learn from sums of one arm."""
        values = (row.count, row.residual, row.error)
        self._arms.add("", row.bucket, row.arm, values)
        self._cells.add((row.layers, row.load), row.bucket, row.arm, values)
        self._means.clear()
        self.revision += 1

    def fold_layer(self, row: LayerSum) -> None:
        """Single layers are the profiler's."""

    def fold_query(self, row: QuerySum) -> None:
        """Whole queries are not a matter of arms."""

    def forget_after(self, bucket: int) -> None:
        """Drop what is stamped later than `bucket`."""
        self._arms.forget_after(bucket)
        self._cells.forget_after(bucket)
        self._means.clear()
        self.revision += 1

    def _arm(self, arm: Arm) -> _ArmMeans:
        """Means over all cells, drawn to 0 (residual) and ln 2 (error) while there are few."""
        known = self._means.get(arm)
        if known is None:
            count, residual, error = self._arms.row("", arm) or (0.0, 0.0, 0.0)
            weight = count + PRIOR
            error = (error / 1_000 + PRIOR * LN2) / weight
            known = self._means[arm] = _ArmMeans(
                residual / 1_000 / weight, exp(-error), exp(pi / 4 * error * error)
            )
        return known
