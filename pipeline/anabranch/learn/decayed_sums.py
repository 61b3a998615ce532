"""Sums that commute, and are forgotten at reading time.

A *cell* keeps integer sums by bucket of time and label. Adding is the only change, so any order
of the same additions gives the same cell; nothing decays in place. How much an old bucket still
counts is decided when the cell is read: gamma^(updates of the cell, under any label, in later
buckets). A label that is no longer updated is thus forgotten along with those that are.

Bounded: only the newest `KEEP` buckets of a cell count. A bucket that has that many newer ones
can never come back among them, so this too does not depend on the order.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Final, Generic, TypeVar

__all__ = ["BUCKET_MS", "KEEP", "Cell", "Cells"]

BUCKET_MS: Final = 1_000
"""Width of a bucket. Within one nothing is forgotten."""
KEEP: Final = 32
"""Buckets a cell keeps."""
MAX_LABELS: Final = 1_024
"""Labels in a bucket of a cell; further ones are not counted."""

K = TypeVar("K", bound=Hashable)
_NOTHING: Final[tuple[float, ...]] = ()


class Cell:
    """Sums by bucket and label. The first value of a row is its number of updates."""

    __slots__ = ("_buckets", "_gamma", "_read")

    def __init__(self, gamma: float) -> None:
        self._gamma = gamma
        self._buckets: dict[int, dict[str, list[int]]] = {}
        self._read: dict[str, list[float]] | None = None

    @property
    def newest(self) -> int:
        """The latest bucket (0 if there is none)."""
        return max(self._buckets, default=0)

    def add(self, bucket: int, label: str, values: Sequence[int]) -> None:
        """Add `values` to the sums of `label` in `bucket`."""
        self._read = None
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
            self._read = None

    def read(self) -> dict[str, list[float]]:
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

    def _open(self, bucket: int) -> dict[str, list[int]]:
        rows: dict[str, list[int]] = {}
        buckets = self._buckets
        buckets[bucket] = rows
        if len(buckets) > KEEP:
            del buckets[min(buckets)]
        return rows

    def _weigh(self) -> dict[str, list[float]]:
        sums: dict[str, list[float]] = {}
        weight = 1.0
        for bucket in sorted(self._buckets, reverse=True):
            rows = self._buckets[bucket]
            for label, row in rows.items():
                total = sums.get(label)
                if total is None:
                    sums[label] = [weight * value for value in row]
                else:
                    for index, value in enumerate(row):
                        total[index] += weight * value
            weight *= self._gamma ** sum(row[0] for row in rows.values())
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
