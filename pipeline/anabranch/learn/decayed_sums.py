"""Sums that commute, and are forgotten at reading time.

A *cell* keeps integer sums by bucket of time and label. Adding is the only change, so any order
of the same additions gives the same cell; nothing decays in place. How much an old bucket still
counts is decided when the cell is read: gamma^(updates of the cell, under any label, in later
buckets). A label that is no longer updated is thus forgotten along with those that are.

Bounded: only the newest `KEEP` buckets of a cell count. A bucket that has that many newer ones
can never come back among them, so this too does not depend on the order.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from operator import add
from typing import Final, Generic, TypeAlias, TypeVar

__all__ = ["BUCKET_MS", "KEEP", "Cell", "Cells"]

BUCKET_MS: Final = 1_000
"""Width of a bucket. Within one nothing is forgotten."""
KEEP: Final = 32
"""Buckets a cell keeps."""
MAX_LABELS: Final = 1_024
"""Labels in a bucket of a cell; further ones are not counted."""

K = TypeVar("K", bound=Hashable)
_NOTHING: Final[tuple[float, ...]] = ()
_Rows: TypeAlias = dict[str, list[int]]
"""Sums of one bucket, by label."""
_Weighed: TypeAlias = dict[str, list[float]]
"""Sums of many, by label."""


class Cell:
    """Sums by bucket and label. The first value of a row is its number of updates."""

    __slots__ = ("_buckets", "_gamma", "_newest", "_older", "_read")

    def __init__(self, gamma: float) -> None:
        self._gamma = gamma
        self._buckets: dict[int, _Rows] = {}
        self._newest = 0
        self._older: _Weighed | None = None
        """All but the newest bucket: most additions leave it as it is."""
        self._read: _Weighed | None = None

    @property
    def newest(self) -> int:
        """The latest bucket (0 if there is none)."""
        return self._newest

    def add(self, bucket: int, label: str, values: Sequence[int]) -> None:
        """Add `values` to the sums of `label` in `bucket`."""
        self._read = None
        if bucket != self._newest:
            self._older = None
        rows = self._buckets.get(bucket)
        if rows is None:
            rows = self._open(bucket)
        row = rows.get(label)
        if row is None:
            if len(rows) < MAX_LABELS:
                rows[label] = list(values)
        else:
            for index, value in enumerate(values):
                row[index] += value

    def forget_after(self, bucket: int) -> None:
        """Drop what is stamped later: the clock that stamped it was set back since."""
        later = [found for found in self._buckets if found > bucket]
        for found in later:
            del self._buckets[found]
        if later:
            self._newest = max(self._buckets, default=0)
            self._older = self._read = None

    def read(self) -> Mapping[str, Sequence[float]]:
        """Weighted sums by label."""
        if self._read is None:
            self._read = self._weigh()
        return self._read

    def row(self, label: str) -> Sequence[float]:
        """Weighted sums of one label; empty if there are none."""
        return self.read().get(label, _NOTHING)

    def by_bucket(self, label: str) -> dict[int, Sequence[int]]:
        """Unweighted sums of one label by bucket, oldest first."""
        return {
            bucket: rows[label] for bucket, rows in sorted(self._buckets.items()) if label in rows
        }

    def _open(self, bucket: int) -> _Rows:
        rows: _Rows = {}
        buckets = self._buckets
        buckets[bucket] = rows
        if len(buckets) > KEEP:
            del buckets[min(buckets)]
        self._newest = max(buckets)
        return rows

    def _weigh(self) -> _Weighed:
        """Oldest first: sums so far count less by each update of the bucket that comes next."""
        if self._older is None:
            self._older = {}
            for bucket in sorted(self._buckets)[:-1]:
                self._older = self._after(self._older, self._buckets[bucket])
        return self._after(self._older, self._buckets.get(self._newest, {}))

    def _after(self, older: _Weighed, rows: _Rows) -> _Weighed:
        weight = self._gamma ** sum([row[0] for row in rows.values()])
        sums = {label: [weight * value for value in row] for label, row in older.items()}
        for label, row in rows.items():
            total = sums.get(label)
            sums[label] = [*map(add, row, total)] if total is not None else [*map(float, row)]
        return sums


class Cells(Generic[K]):
    """Cells by key, at most `limit`: beyond it those longest without an update go.

    Within the limit the content does not depend on the order of the additions.

    Args:
        is_own: whether a key goes only after all for which this is False.
    """

    def __init__(
        self, gamma: float, limit: int, is_own: Callable[[K], bool] = lambda key: False
    ) -> None:
        self._gamma = gamma
        self._limit = limit
        self._is_own = is_own
        self._cells: dict[K, Cell] = {}

    def __len__(self) -> int:
        return len(self._cells)

    @property
    def keys(self) -> Sequence[K]:
        """Keys of all cells."""
        return tuple(self._cells)

    def get(self, key: K) -> Cell | None:
        """The cell of `key`, or None."""
        return self._cells.get(key)

    def add(self, key: K, bucket: int, label: str, values: Sequence[int]) -> None:
        """Add `values` under `label` to the cell of `key`."""
        cell = self._cells.get(key)
        if cell is None:
            if len(self._cells) >= self._limit:
                self._evict()
            cell = self._cells[key] = Cell(self._gamma)
        cell.add(bucket, label, values)

    def forget_after(self, bucket: int) -> None:
        """Drop what is stamped later, and cells of which nothing is left."""
        for key, cell in list(self._cells.items()):
            cell.forget_after(bucket)
            if not cell.newest:
                del self._cells[key]

    def row(self, key: K, label: str) -> Sequence[float]:
        """Weighted sums of `label` in the cell of `key`; empty if there are none."""
        cell = self._cells.get(key)
        return cell.row(label) if cell is not None else _NOTHING

    def _evict(self) -> None:
        """Drop the eighth that is oldest at once, so that eviction is rare."""
        for key in sorted(self._cells, key=self._precedence)[: max(1, self._limit // 8)]:
            del self._cells[key]

    def _precedence(self, key: K) -> tuple[bool, int, str]:
        return self._is_own(key), self._cells[key].newest, str(key)
