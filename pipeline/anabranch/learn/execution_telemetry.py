"""Records what really happened, learns from it, shares it, and says what it means."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final
from zlib import crc32

from msgspec.structs import replace

from anabranch.contract.rows import Rows
from anabranch.contract.telemetry import (
    ExecutionTelemetry,
    TelemetryBatch,
)
from anabranch.learn.analytics import Analytics
from anabranch.learn.clamping import clamped
from anabranch.learn.decayed_sums import BUCKET_MS
from anabranch.learn.folding import Fold, fitting, heaviest, merge, newest, teach, until
from anabranch.learn.name_filter import NameFilter
from anabranch.learn.recommendations import Recommendation, recommend
from anabranch.learn.seen_batches import SeenBatches
from anabranch.learn.summary import CachedKey, sum_up, sum_up_cached

__all__ = ["ExecutionTelemetryCollector"]

SETTLE: Final = 16
"""Records after which an instance learns from its own; when few come, it does each second."""
SETTLE_MS: Final = 50
"""When many come (over 320 a second) it learns so often, from all that came since."""
MERGE: Final = 64
"""Settled parts that wait to be sent before they are merged into one."""
MAX_ROWS: Final = 1_000
"""Rows of a kind that wait to be sent; beyond it those with the smallest counts are dropped."""
AHEAD: Final = 10_000 // BUCKET_MS
"""Buckets by which others' clocks may be ahead."""
MAX_CACHED: Final = 256
"""Kinds of query that the cache answers, of which numbers are held before they are summed up."""
MAX_SAMPLED: Final = 64
"""Raw records in a batch."""
READ_ROWS: Final = 20_000
"""Rows of others that are folded between two own batches: a few hundredths of a second."""


class ExecutionTelemetryCollector:
    """Collects records, teaches `folds` what this and other instances saw, and analyses it.

    Args:
        instance: this process's name, new with every start.
        folds: what learns: profiler, dependency graph, cost model.
        sample: share of records that is kept raw, for replay; explored ones always are.
        settings: present values, by key of the configuration, of what may be recommended.
        names: what is learned of; by default everything.
        now_ms: the broker's clock: what others stamp ahead of it is not believed; by default
            everything is.
    """

    def __init__(
        self,
        instance: str = "",
        folds: Sequence[Fold] = (),
        *,
        sample: float = 0.02,
        settings: Mapping[str, Any] | None = None,
        names: NameFilter | None = None,
        now_ms: Callable[[], float] | None = None,
    ) -> None:
        self.instance = instance
        self._names = names
        self._now_ms = now_ms
        self._latest = 0
        self.analytics = Analytics()
        self.dropped = 0
        self.skipped_rows = 0
        self._folds = (*folds, self.analytics)
        self._sample = sample
        self._threshold = sample * 2**32
        self._settings = settings if settings is not None else {}
        self._records: list[ExecutionTelemetry] = []
        self._cached: dict[CachedKey, int] = {}
        self._pending: list[Rows] = []
        self._sampled: list[ExecutionTelemetry] = []
        self._seen = SeenBatches()
        self._sequence = 0
        self._bucket = 0
        self._settled_ms = 0
        self._budget = READ_ROWS

    def record(self, record: ExecutionTelemetry) -> None:
        """Count one answered query."""
        self._records.append(record if self._names is None else self._names.record(record))
        if record.explored:
            self._keep(record, 1.0)
        elif self.is_sampled(record.query):
            self._keep(record, self._sample)
        at_ms = record.at_ms
        bucket = at_ms // BUCKET_MS
        is_due = len(self._records) >= SETTLE and abs(at_ms - self._settled_ms) >= SETTLE_MS
        if is_due or bucket != self._bucket:
            self._settled_ms = at_ms
            self._settle_in(bucket)

    def is_sampled(self, query: str) -> bool:
        """Whether a query's record is kept raw, by its id."""
        return crc32(query.encode()) < self._threshold

    def count_cached(self, type_: str, layers: tuple[str, ...], at_ms: float) -> None:
        """Count a query that the cache answered whole: a number instead of a record."""
        bucket = int(at_ms) // BUCKET_MS
        key = bucket, type_, layers
        self._cached[key] = self._cached.get(key, 0) + 1
        if bucket != self._bucket or len(self._cached) > MAX_CACHED:
            self._settle_in(bucket)

    def settle(self) -> None:
        """Learn from what was recorded so far."""
        records, self._records = self._records, []  # what cannot be summed is not tried again
        cached, self._cached = self._cached, {}
        rows = sum_up(records)
        if cached:
            rows = merge([rows, self._of_cached(cached)])
        teach(rows, self._folds)
        self._pending.append(rows)
        if len(self._pending) >= MERGE:
            self._shrink()

    def take_batch(self) -> TelemetryBatch | None:
        """What was recorded since the last batch, to be sent; None if there is nothing.

        Also renews what may be spent on reading others: call it at a steady interval.
        """
        self._budget = READ_ROWS
        self._follow_clock()
        self.settle()
        rows, dropped = heaviest(merge(self._pending), MAX_ROWS)
        sampled, dropped = tuple(self._sampled), self.dropped + dropped
        if not rows.count and not dropped:
            return None
        self._pending, self._sampled, self.dropped = [], [], 0
        self._sequence += 1
        return fitting(TelemetryBatch(self.instance, self._sequence, rows, sampled, dropped))

    def fold(self, batch: TelemetryBatch) -> bool:
        """Learn from a batch of another instance. False if it was not counted.

        A batch counts once; own ones were counted when they were recorded; and what does not
        fit into the reading budget is skipped (`skipped_rows`).
        """
        if batch.rows.count > self._budget:
            self.skipped_rows += batch.rows.count
            return False
        if not self._teach(batch):
            return False
        self._budget -= batch.rows.count
        return True

    def replay(self, batches: Iterable[TelemetryBatch]) -> int:
        """Learn from the recent past, without a budget. Returns how many batches counted."""
        return sum(self._teach(batch) for batch in batches)

    def get_decision_accuracy(self) -> dict[str, dict[str, float]]:
        """How good the estimates are: by arm, over all, and for types not seen before."""
        self.settle()
        return self.analytics.accuracy()

    def get_strategy_effectiveness(self) -> dict[str, dict[str, float | None]]:
        """How each strategy does: latency, success, and speed-up where baselines were measured."""
        self.settle()
        return self.analytics.effectiveness()

    def get_query_type_insights(self) -> dict[str, dict[str, Any]]:
        """What is best for each query type, and what it costs under each strategy."""
        self.settle()
        return self.analytics.types()

    def get_performance_trend(self) -> dict[str, Any]:
        """Whether latency and success get better or worse."""
        self.settle()
        return self.analytics.trend()

    def get_strategy_recommendations(self) -> list[Recommendation]:
        """What should be set otherwise, and why."""
        self.settle()
        return recommend(self.analytics, self._settings)

    def _teach(self, batch: TelemetryBatch) -> bool:
        if batch.instance == self.instance:
            return False
        if not self._seen.first_time(batch.instance, batch.sequence):
            return False
        rows = self._of_the_past(clamped(batch.rows))
        if self._names is not None:
            rows = self._names.rows(rows)
        teach(rows, self._folds)
        return True

    def _of_the_past(self, rows: Rows) -> Rows:
        """Without what is stamped ahead of time: it would displace what comes till then."""
        if self._now_ms is None:
            return rows
        limit = int(self._now_ms()) // BUCKET_MS + AHEAD
        rows = until(rows, limit)
        self._latest = max(self._latest, newest(rows))
        return rows

    def _follow_clock(self) -> None:
        """Forget the future: whatever was learned there would last until it is reached again."""
        if self._now_ms is None:
            return
        bucket = int(self._now_ms()) // BUCKET_MS
        if bucket + AHEAD < self._latest:
            self._latest = bucket
            for fold in self._folds:
                fold.forget_after(bucket)

    def _settle_in(self, bucket: int) -> None:
        self._bucket = bucket
        self._latest = max(self._latest, bucket)
        self.settle()

    def _of_cached(self, counts: Mapping[CachedKey, int]) -> Rows:
        rows = sum_up_cached(counts)
        return rows if self._names is None else self._names.rows(rows)

    def _keep(self, record: ExecutionTelemetry, probability: float) -> None:
        if len(self._sampled) < MAX_SAMPLED:
            parallel, distributed = self.analytics.speedups(record.plan, record.total_latency_ms)
            self._sampled.append(
                replace(
                    record,
                    parallel_speedup=parallel,
                    distributed_speedup=distributed,
                    sampled=probability,
                )
            )

    def _shrink(self) -> None:
        """Merge what waits to be sent; of what is too much, what counts least is dropped."""
        rows, dropped = heaviest(merge(self._pending), MAX_ROWS)
        self._pending = [rows]
        self.dropped += dropped
