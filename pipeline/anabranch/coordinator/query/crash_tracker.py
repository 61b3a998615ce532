"""Questions whose workers died: a layer may crash its process on one question only.

Whoever gets the task next dies of it, too. Every question that a dead worker had is marked, with
the layers it was asked for there; a layer that ends for it, anywhere, is cleared; a question with
three marks in ten minutes is not asked any more. Its last task is read again and again until its
deadline: those deaths are explained, and mark nobody else.

Workers that die together died of something else, or of one and the same task's bundle: they are one
mark, since whoever gets the task next gets it only when the group has noticed that a member is
gone. One that was only silent takes its marks back when it is heard again. Who had the same workers
each time is quarantined with it, for those ten minutes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Set
from typing import Final, NamedTuple

from anabranch.dispatch.routing import Route

__all__ = ["DEATHS", "CrashTracker"]

DEATHS: Final = 3
_WINDOW_MS: Final = 600_000.0
_MOST: Final = 10_000
"""Questions remembered; of more, those longest without a death are forgotten."""


class _Mark(NamedTuple):
    """Deaths that count once: when, whose, and the layers that they may be laid to."""

    at_ms: float
    workers: frozenset[str]
    layers: frozenset[str]


class CrashTracker:
    """Deaths by question, as its digest: of any length. `now_ms` is the broker's clock.

    Args:
        apart_ms: deaths with less time between them are one.
    """

    def __init__(self, apart_ms: float) -> None:
        self._apart_ms = apart_ms
        self._marks: OrderedDict[str, tuple[_Mark, ...]] = OrderedDict()
        self._deadly: dict[Route, float] = {}
        """Where tasks of quarantined questions still lie, and until when they are run."""

    def died(self, worker: str, had: Mapping[str, Set[str]], now_ms: float) -> None:
        """A worker died; it had these questions, for these layers."""
        for question, layers in had.items():
            marks = self._recent(question, now_ms)
            mark = _Mark(now_ms, frozenset({worker}), frozenset(layers))
            if marks and now_ms - marks[-1].at_ms < self._apart_ms:
                at_ms, workers, others = marks[-1]
                together = _Mark(at_ms, workers | mark.workers, others | mark.layers)
                self._marks[question] = (*marks[:-1], together)
            else:
                self._marks[question] = (*marks, mark)[-DEATHS:]
                self._marks.move_to_end(question)
        while len(self._marks) > _MOST:
            self._marks.popitem(last=False)

    def returned(self, *workers: str) -> None:
        """They were not dead."""
        if not workers:
            return
        alive = frozenset(workers)
        for question, marks in list(self._marks.items()):
            if not all(alive.isdisjoint(mark.workers) for mark in marks):
                self._keep(question, [m._replace(workers=m.workers - alive) for m in marks])

    def survived(self, question: str, layer: str) -> None:
        """A worker asked a layer and lived."""
        if marks := self._marks.get(question):
            self._keep(question, [m._replace(layers=m.layers - {layer}) for m in marks])

    def is_quarantined(self, question: str, now_ms: float) -> bool:
        """Whether it is not to be asked any more."""
        return bool(self._marks) and len(self._recent(question, now_ms)) >= DEATHS

    def gave_up(self, routes: Iterable[Route], deadline_ms: float) -> None:
        """A quarantined question's tasks were sent there."""
        for route in routes:
            self._deadly[route] = max(deadline_ms, self._deadly.get(route, 0.0))

    def explains(self, routes: Set[Route], heard_ms: float) -> bool:
        """Whether a worker that read these died of a question that is quarantined already."""
        return any(self._deadly[route] > heard_ms for route in routes & self._deadly.keys())

    def shift(self, moved_ms: float, now_ms: float) -> None:
        """The clock was set: deaths are as long ago as they are."""
        for question, marks in self._marks.items():
            self._marks[question] = tuple(m._replace(at_ms=m.at_ms + moved_ms) for m in marks)

    def _keep(self, question: str, marks: Iterable[_Mark]) -> None:
        """Those marks that are still laid to somebody."""
        left = tuple(mark for mark in marks if mark.workers and mark.layers)
        if left:
            self._marks[question] = left
        else:
            del self._marks[question]

    def _recent(self, question: str, now_ms: float) -> tuple[_Mark, ...]:
        marks = self._marks.get(question, ())
        return tuple(mark for mark in marks if now_ms - mark.at_ms < _WINDOW_MS)
