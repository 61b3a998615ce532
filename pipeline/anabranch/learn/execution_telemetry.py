"""Records what really happened, learns from it, and says what it means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from anabranch.learn.journal import Journal, fold_rows
from anabranch.learn.records import ExecutionTelemetry, LayerOutcome, telemetry_of
from anabranch.learn.rows import Fold

__all__ = ["ExecutionTelemetry", "ExecutionTelemetryCollector", "LayerOutcome", "telemetry_of"]

SETTLE: Final = 16
"""Records after which an instance learns from its own, at the latest."""


class ExecutionTelemetryCollector:
    """Collects records, and teaches `folds` what this and other instances saw.

    Args:
        instance: this process's name, new with every start.
        folds: what learns: profiler, dependency graph, cost model.
    """

    def __init__(self, instance: str = "", folds: Sequence[Fold] = ()) -> None:
        self.instance = instance
        self._folds = tuple(folds)
        self._journal = Journal()
        self._bucket = 0

    def record(self, record: ExecutionTelemetry) -> None:
        """Count one answered query."""
        journal = self._journal
        journal.add(record)
        if journal.count >= SETTLE:
            self.settle()

    def settle(self) -> None:
        """Learn from what was recorded so far."""
        fold_rows(self._journal.take(), self._folds)
