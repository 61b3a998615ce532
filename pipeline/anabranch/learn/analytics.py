"""What telemetry means: accuracy, effectiveness, types, trend. A fold over rows, in minutes.

It looks back over the last `KEEP` minutes in which anything happened, all weighing the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import exp
from typing import Any, Final

from msgspec import Struct

from anabranch.contract.plan import Arm, PlanPart
from anabranch.contract.rows import LayerSum, PlanSum, QuerySum
from anabranch.learn.decayed_sums import Cell, Cells

__all__ = ["MIN_SAMPLES", "Analytics", "LayerTotals", "Totals"]

MINUTE: Final = 60
"""Buckets of rows in one of the analytics'."""
MIN_SAMPLES: Final = 5
"""Observations before anything is said of them."""
TREND: Final = 0.1
"""Change of the mean latency (or of the share of failures) that counts as a trend."""
ARMS: Final[tuple[Arm, ...]] = ("sequential", "parallel", "distributed")
BASELINE: Final[dict[Arm, Arm]] = {"parallel": "sequential", "distributed": "parallel"}
KNOWN, NOVEL, ALL = "known", "novel", "*"


class Totals(Struct, frozen=True, gc=False):
    """Sums over queries, in the order of `QuerySum` from `count` on."""

    count: float
    ok: float
    cached: float
    total_us: float
    queue_us: float
    hedges: float
    explored: float
    shadow: float
    shadow_gain_us: float

    @property
    def mean_ms(self) -> float:
        """Mean time from plan to answer."""
        return self.total_us / self.count / 1_000

    @property
    def success_rate(self) -> float:
        """Share of complete answers."""
        return self.ok / self.count


class LayerTotals(Struct, frozen=True, gc=False):
    """Sums over refreshed answers of a layer."""

    refreshed: float
    changed: float


class Analytics:
    """Sums by type and strategy, by arm, by arm and layers, and by layer."""

    def __init__(self) -> None:
        self._queries: Cells[str] = Cells(1.0, 1_024)
        self._arms: Cells[Arm] = Cells(1.0, len(ARMS))
        self._layer_sets: Cells[tuple[str, ...]] = Cells(1.0, 1_024)
        self._layers: Cells[str] = Cells(1.0, 1_024)
        self._all = Cell(1.0)

    def fold_query(self, row: QuerySum) -> None:
        """Count queries."""
        bucket = row.bucket // MINUTE
        values = (
            row.count,
            row.ok,
            row.cached,
            row.total_us,
            row.queue_us,
            row.hedges,
            row.explored,
            row.shadow,
            row.shadow_gain_us,
        )
        self._queries.add(row.type, bucket, row.strategy, values)
        self._all.add(bucket, ALL, values)

    def fold_plan(self, row: PlanSum) -> None:
        """Count arms."""
        bucket = row.bucket // MINUTE
        label = NOVEL if row.novel else KNOWN
        self._arms.add(row.arm, bucket, label, (row.count, row.residual, row.error))
        self._layer_sets.add(row.layers, bucket, row.arm, (row.count, row.elapsed_us))

    def fold_layer(self, row: LayerSum) -> None:
        """Count refreshes."""
        if row.refreshed:
            values = (row.refreshed, row.changed)
            self._layers.add(row.layer, row.bucket // MINUTE, ALL, values)

    def forget_after(self, bucket: int) -> None:
        """Drop what is stamped later than `bucket`."""
        for sums in (self._queries, self._arms, self._layer_sets, self._layers, self._all):
            sums.forget_after(bucket // MINUTE)

    def totals(self) -> Totals | None:
        """Sums over all queries."""
        return _sum([self._all.row(ALL)])

    def layer_sets(self) -> dict[tuple[str, ...], dict[Arm, tuple[float, float]]]:
        """(plans, mean ms) by layers and arm, where enough were measured."""
        found: dict[tuple[str, ...], dict[Arm, tuple[float, float]]] = {}
        for layers in self._layer_sets.keys:
            means = {arm: self._mean(layers, arm) for arm in ARMS}
            found[layers] = {arm: mean for arm, mean in means.items() if mean is not None}
        return found

    def layers(self) -> dict[str, LayerTotals]:
        """Refreshes by layer."""
        return {name: LayerTotals(*self._layers.row(name, ALL)) for name in self._layers.keys}

    def accuracy(self) -> dict[str, dict[str, float]]:
        """By arm, `overall`, and `novel` (types not seen before, which are not in the others).

        accuracy is exp(-mean |ln(actual / estimate)|), bias above 1 means slower than the formula.
        """
        found = {arm: self._accuracy([arm], KNOWN) for arm in ARMS}
        report: dict[str, dict[str, float]] = {arm: row for arm, row in found.items() if row}
        report["overall"] = self._accuracy(ARMS, KNOWN)
        report[NOVEL] = self._accuracy(ARMS, NOVEL)
        return {name: row for name, row in report.items() if row}

    def effectiveness(self) -> dict[str, dict[str, float | None]]:
        """By strategy: queries, latency, success, and the speed-up over its baseline."""
        by_strategy: dict[str, list[Sequence[float]]] = {}
        for type_ in self._queries.keys:
            for strategy, row in self._row(type_).items():
                by_strategy.setdefault(strategy, []).append(row)
        report: dict[str, dict[str, float | None]] = {}
        for strategy, rows in sorted(by_strategy.items()):
            total = _sum(rows)
            if total is not None:
                report[strategy] = {
                    "queries": total.count,
                    "mean_ms": total.mean_ms,
                    "success_rate": total.success_rate,
                    "speedup": self._mean_speedup(strategy),
                }
        return report

    def types(self) -> dict[str, dict[str, Any]]:
        """By type: queries, success, mean latency by strategy, and the fastest that fetches."""
        report: dict[str, dict[str, Any]] = {}
        for type_ in sorted(self._queries.keys):
            rows = {name: Totals(*row) for name, row in self._row(type_).items() if row[0] > 0}
            total = _sum(list(self._row(type_).values()))
            if total is None:
                continue
            means = {name: row.mean_ms for name, row in rows.items()}
            measured = [n for n, row in rows.items() if n != "cache" and row.count >= MIN_SAMPLES]
            report[type_] = {
                "queries": total.count,
                "success_rate": total.success_rate,
                "layers_cached": total.cached / total.count,
                "mean_ms": means,
                "optimal": min(measured, key=means.__getitem__, default=None),
            }
        return report

    def trend(self) -> dict[str, Any]:
        """The later half of the minutes against the earlier one."""
        minutes = list(self._all.by_bucket(ALL).values())
        half = len(minutes) // 2
        before, after = _sum(minutes[:half]), _sum(minutes[half:])
        if before is None or after is None or min(before.count, after.count) < MIN_SAMPLES:
            return {"trend": "unknown", "minutes": len(minutes)}
        change = after.mean_ms / before.mean_ms - 1 if before.mean_ms > 0 else 0.0
        return {
            "trend": _trend(change, before.success_rate - after.success_rate),
            "minutes": len(minutes),
            "mean_ms": (before.mean_ms, after.mean_ms),
            "success_rate": (before.success_rate, after.success_rate),
            "change_pct": 100 * change,
        }

    def speedups(
        self, plan: Sequence[PlanPart], total_ms: float
    ) -> tuple[float | None, float | None]:
        """(parallel against sequential, distributed against parallel) of one answer.

        None without enough measured baselines of the same layers, and for plans of several
        groups, of which the baselines are not comparable.
        """
        if len(plan) != 1 or total_ms <= 0:
            return None, None
        part = plan[0]
        baseline = BASELINE.get(part.arm)
        mean = self._mean(part.layers, baseline) if baseline is not None else None
        ratio = mean[1] / total_ms if mean is not None else None
        return (ratio, None) if part.arm == "parallel" else (None, ratio)

    def _row(self, type_: str) -> Mapping[str, Sequence[float]]:
        cell = self._queries.get(type_)
        return cell.read() if cell is not None else {}

    def _mean(self, layers: tuple[str, ...], arm: Arm) -> tuple[float, float] | None:
        row = self._layer_sets.row(layers, arm)
        if not row or row[0] < MIN_SAMPLES:
            return None
        return row[0], row[1] / row[0] / 1_000

    def _mean_speedup(self, strategy: str) -> float | None:
        """Mean over layer sets of which both were measured, weighted by plans."""
        weight = gain = 0.0
        for means in self.layer_sets().values():
            for arm, baseline in BASELINE.items():
                if arm == strategy and arm in means and baseline in means:
                    count, mean_ms = means[arm]
                    weight += count
                    gain += count * means[baseline][1] / mean_ms if mean_ms > 0 else count
        return gain / weight if weight else None

    def _accuracy(self, arms: Iterable[Arm], label: str) -> dict[str, float]:
        rows = [row for row in (self._arms.row(arm, label) for arm in arms) if row]
        count = sum(row[0] for row in rows)
        if not count:
            return {}
        error = sum(row[2] for row in rows) / count / 1_000
        bias = sum(row[1] for row in rows) / count / 1_000
        return {
            "plans": count,
            "accuracy": exp(-error),
            "error_pct": 100 * (exp(error) - 1),
            "bias": exp(bias),
        }


def _trend(slower: float, failing: float) -> str:
    if slower > TREND or failing > TREND:
        return "degrading"
    return "improving" if slower < -TREND or failing < -TREND else "stable"


def _sum(rows: Iterable[Sequence[float]]) -> Totals | None:
    """Column by column; None if nothing was counted."""
    columns = [sum(column) for column in zip(*rows, strict=True)]
    return Totals(*columns) if columns and columns[0] else None
