"""What is learned of: layers that are announced, types that are configured and a few others.

Whoever asks chooses the names of layers and types. Invented ones must neither cost memory nor
push out what was learned of real ones.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Final

from msgspec.structs import replace

from anabranch.contract.rows import LayerSum, PlanSum, QuerySum, Rows
from anabranch.contract.telemetry import ExecutionTelemetry

__all__ = ["MAX_FOREIGN_TYPES", "OTHER", "NameFilter"]

MAX_FOREIGN_TYPES: Final = 32
"""Types that nobody configured and that are told apart, the first that were asked."""
OTHER: Final = "(other)"
"""All the rest."""


class NameFilter:
    """Renames types and drops layers that are not learned of.

    Args:
        types: the configured ones.
        layers: those that are announced at the moment.
    """

    def __init__(self, types: Container[str], layers: Callable[[], Container[str]]) -> None:
        self._types = types
        self._layers = layers
        self._foreign: set[str] = set()

    def type(self, name: str) -> str:
        """What a type is learned as."""
        if name in self._types or name in self._foreign:
            return name
        if len(self._foreign) < MAX_FOREIGN_TYPES:
            self._foreign.add(name)
            return name
        return OTHER

    def record(self, record: ExecutionTelemetry) -> ExecutionTelemetry:
        """An answered query, as it is learned from."""
        layers, kind = self._layers(), self.type(record.type)
        for outcome in record.layers:
            if outcome.layer not in layers:
                break
        else:
            if kind == record.type:
                return record
        known = tuple([outcome for outcome in record.layers if outcome.layer in layers])
        return replace(record, type=kind, layers=known)

    def rows(self, rows: Rows) -> Rows:
        """What another instance saw, as it is learned from."""
        layers = self._layers()
        return Rows(
            tuple([self._layer(row) for row in rows.layers if row.layer in layers]),
            tuple([self._plan(row) for row in rows.plans if all(n in layers for n in row.layers)]),
            tuple([self._query(row, layers) for row in rows.queries]),
        )

    def _layer(self, row: LayerSum) -> LayerSum:
        kind = self.type(row.type)
        return row if kind == row.type else replace(row, type=kind)

    def _plan(self, row: PlanSum) -> PlanSum:
        kind = self.type(row.type)
        return row if kind == row.type else replace(row, type=kind)

    def _query(self, row: QuerySum, layers: Container[str]) -> QuerySum:
        kind = self.type(row.type)
        names = tuple([name for name in row.layers if name in layers])
        if kind == row.type and len(names) == len(row.layers):
            return row
        return replace(row, type=kind, layers=names)
