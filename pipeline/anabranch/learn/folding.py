"""What learns from rows of sums, and how rows are added up, cut to the past and to a record."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol, TypeVar, runtime_checkable

from msgspec.structs import astuple, replace

from anabranch.contract.codec import MAX_VALUE_BYTES, encode
from anabranch.contract.rows import LayerSum, PlanSum, QuerySum, Rows
from anabranch.contract.telemetry import TelemetryBatch

__all__ = ["MAX_TOGETHER", "Fold", "fitting", "heaviest", "merge", "newest", "teach", "until"]

MAX_TOGETHER: Final = 32
"""Layers in a query from which pairs are still learned."""


@runtime_checkable
class Fold(Protocol):
    """Something that learns from rows, in whatever order they come."""

    def fold_layer(self, row: LayerSum) -> None:
        """Learn from sums of one layer."""
        ...

    def fold_plan(self, row: PlanSum) -> None:
        """Learn from sums of one arm."""
        ...

    def fold_query(self, row: QuerySum) -> None:
        """Learn from sums of whole queries."""
        ...

    def forget_after(self, bucket: int) -> None:
        """Drop what is stamped later than `bucket`: the clock was set back."""
        ...


def teach(rows: Rows, folds: Iterable[Fold]) -> None:
    """Fold all rows into each of `folds`."""
    for fold in folds:
        for layer in rows.layers:
            fold.fold_layer(layer)
        for plan in rows.plans:
            fold.fold_plan(plan)
        for query in rows.queries:
            fold.fold_query(query)


def merge(parts: Iterable[Rows]) -> Rows:
    """One row for each key that occurs in `parts`."""
    parts = tuple(parts)
    return Rows(
        _merge(LayerSum, 4, (row for part in parts for row in part.layers)),
        _merge(PlanSum, 6, (row for part in parts for row in part.plans)),
        _merge(QuerySum, 4, (row for part in parts for row in part.queries)),
    )


def until(rows: Rows, bucket: int) -> Rows:
    """The rows that are stamped no later than `bucket`."""
    if newest(rows) <= bucket:
        return rows
    return Rows(
        tuple([row for row in rows.layers if row.bucket <= bucket]),
        tuple([row for row in rows.plans if row.bucket <= bucket]),
        tuple([row for row in rows.queries if row.bucket <= bucket]),
    )


def newest(rows: Rows) -> int:
    """The latest bucket; 0 without rows."""
    kinds: tuple[Iterable[LayerSum | PlanSum | QuerySum], ...]
    kinds = (rows.layers, rows.plans, rows.queries)
    return max((row.bucket for kind in kinds for row in kind), default=0)


def heaviest(rows: Rows, most: int) -> tuple[Rows, int]:
    """At most `most` rows of each kind, those with the largest counts; and the queries left out."""
    layers = sorted(rows.layers, key=lambda row: -row.asked)[:most]
    plans = sorted(rows.plans, key=lambda row: -row.count)[:most]
    queries = sorted(rows.queries, key=lambda row: -row.count)
    dropped = sum(row.count for row in queries[most:])
    return Rows(tuple(layers), tuple(plans), tuple(queries[:most])), dropped


def fitting(batch: TelemetryBatch) -> TelemetryBatch:
    """A batch that fits into a record: without raw records, and rows that count little."""
    most = max(len(batch.rows.layers), len(batch.rows.plans), len(batch.rows.queries))
    while len(encode(batch)) > MAX_VALUE_BYTES:
        if batch.sampled:
            batch = replace(batch, sampled=batch.sampled[: len(batch.sampled) // 2])
        else:
            most //= 2
            rows, dropped = heaviest(batch.rows, most)
            batch = replace(batch, rows=rows, dropped=batch.dropped + dropped)
    return batch


R = TypeVar("R", LayerSum, PlanSum, QuerySum)


def _merge(kind: type[R], keys: int, rows: Iterable[R]) -> tuple[R, ...]:
    """Add up rows that agree in their first `keys` fields."""
    sums: dict[tuple[object, ...], list[int]] = {}
    for row in rows:
        values = astuple(row)
        total = sums.setdefault(values[:keys], [0] * (len(values) - keys))
        for index, value in enumerate(values[keys:]):
            total[index] += value
    return tuple(kind(*key, *total) for key, total in sums.items())  # type: ignore[arg-type]
