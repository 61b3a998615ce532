"""What of another instance's rows is believed: no sum is more than its count can have added up.

The schema lets any number up to 2^53 pass. A row whose parts contradict each other (one answer
that took e^(10^12) microseconds, more answers than requests) would make means infinite.
"""

from __future__ import annotations

from math import log
from typing import Final

from anabranch.contract.bounds import MAX_ITEMS, MAX_LAYERS, MAX_SPAN_MS
from anabranch.contract.rows import LayerSum, PlanSum, QuerySum, Rows
from anabranch.learn.cost_model import CLIP

__all__ = ["clamped"]

MAX_COUNT: Final = 1_000_000
"""Of whatever an instance can do in a second."""
MAX_SPAN_US: Final = MAX_SPAN_MS * 1_000
MAX_LN: Final = int(1_000 * log(MAX_SPAN_US))
MAX_RESIDUAL: Final = int(1_000 * CLIP)


def clamped(rows: Rows) -> Rows:
    """The rows with each sum clamped to what its count allows."""
    return Rows(
        tuple(map(_layer, rows.layers)),
        tuple(map(_plan, rows.plans)),
        tuple(map(_query, rows.queries)),
    )


def _layer(row: LayerSum) -> LayerSum:
    asked = _clamp(row.asked, MAX_COUNT)
    ok, timed = _clamp(row.ok, asked), _clamp(row.timed, asked)
    refreshed = _clamp(row.refreshed, ok)
    return LayerSum(
        row.bucket, row.type, row.arm, row.layer, asked, ok, timed,
        _clamp(row.took_ln, timed * MAX_LN),
        _clamp(row.items, ok * MAX_ITEMS),
        _clamp(row.used, ok),
        refreshed,
        _clamp(row.changed, refreshed),
    )  # fmt: skip


def _plan(row: PlanSum) -> PlanSum:
    count = _clamp(row.count, MAX_COUNT)
    most = count * MAX_RESIDUAL
    return PlanSum(
        row.bucket, row.type, row.arm, row.layers, row.load, row.novel, count,
        max(-most, min(row.residual, most)),
        _clamp(row.error, most),
        _clamp(row.elapsed_us, count * MAX_SPAN_US),
    )  # fmt: skip


def _query(row: QuerySum) -> QuerySum:
    count = _clamp(row.count, MAX_COUNT)
    most_us = count * MAX_SPAN_US
    return QuerySum(
        row.bucket, row.type, row.strategy, row.layers, count,
        _clamp(row.ok, count),
        _clamp(row.cached, count * MAX_LAYERS),
        _clamp(row.total_us, most_us),
        _clamp(row.queue_us, most_us),
        _clamp(row.hedges, count * MAX_LAYERS),
        _clamp(row.explored, count),
        _clamp(row.shadow, count),
        max(-most_us, min(row.shadow_gain_us, most_us)),
    )  # fmt: skip


def _clamp(value: int, most: int) -> int:
    return max(0, min(value, most))
