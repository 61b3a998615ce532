"""Questions whose workers died: a layer may crash its process on one question only.

Whoever gets the task next dies of it, too. Every question that a dead worker had is marked; one
that is answered is cleared; one with three marks in ten minutes is not asked any more. Its last
task is read again and again until its deadline: those deaths are explained, and mark nobody else.
Workers that die together died of something else, or of one and the same task's bundle: they are one
mark, since whoever gets the task next gets it only when the group has noticed that a member is
gone. Who had the same workers each time is condemned with the guilty, for those ten minutes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Set
from typing import TYPE_CHECKING, Final

from anabranch.cache.keys import Question
from anabranch.dispatch.routing import Route

if TYPE_CHECKING:
    from anabranch.coordinator.brain import Brain
    from anabranch.coordinator.partition import QueryPartition

__all__ = ["DEATHS", "Mortality", "mourn"]

DEATHS: Final = 3
_WINDOW_MS: Final = 600_000.0
_MOST: Final = 10_000
"""Questions remembered; of more, those longest without a death are forgotten."""


class Mortality:
    """Deaths by question. `now_ms` is the broker's clock.

    Args:
        apart_ms: deaths with less time between them are one.
    """

    def __init__(self, apart_ms: float) -> None:
        self._apart_ms = apart_ms
        self._deaths: OrderedDict[Question, tuple[float, ...]] = OrderedDict()
        self._deadly: dict[Route, float] = {}
        """Where tasks of condemned questions still lie, and until when they are run."""

    def died(self, questions: Iterable[Question], now_ms: float) -> None:
        """One worker died; it had these."""
        for question in questions:
            recent = self._recent(question, now_ms)
            if not recent or now_ms - recent[-1] >= self._apart_ms:
                self._deaths[question] = (*recent, now_ms)[-DEATHS:]
                self._deaths.move_to_end(question)
        while len(self._deaths) > _MOST:
            self._deaths.popitem(last=False)

    def survived(self, question: Question) -> None:
        """Workers answered it."""
        self._deaths.pop(question, None)

    def condemns(self, question: Question, now_ms: float) -> bool:
        """Whether it is not to be asked any more."""
        return bool(self._deaths) and len(self._recent(question, now_ms)) >= DEATHS

    def gave_up(self, routes: Iterable[Route], deadline_ms: float) -> None:
        """A condemned question's tasks were sent there."""
        for route in routes:
            self._deadly[route] = max(deadline_ms, self._deadly.get(route, 0.0))

    def explains(self, routes: Set[Route], heard_ms: float) -> bool:
        """Whether a worker that read these died of a question that is condemned already."""
        self._deadly = {r: until for r, until in self._deadly.items() if until > heard_ms}
        return bool(routes & self._deadly.keys())

    def _recent(self, question: Question, now_ms: float) -> tuple[float, ...]:
        deaths = self._deaths.get(question, ())
        return tuple(at_ms for at_ms in deaths if now_ms - at_ms < _WINDOW_MS)


def mourn(brain: Brain, partitions: Mapping[int, QueryPartition]) -> None:
    """Mark what workers had that died lately, and give up what is condemned now."""
    now_ms = brain.now_ms()
    for member, until_ms in brain.directory.deaths(now_ms):
        routes = {(member.group, number) for number in member.partitions}
        if brain.mortality.explains(routes, until_ms):
            continue
        had = [
            (partition, open_query)
            for partition in partitions.values()
            if not partition.held
            for open_query in partition.queries.sent_to(routes, until_ms)
        ]
        brain.mortality.died({open_query.key for _, open_query in had}, now_ms)
        for partition, open_query in had:
            partition.queries.on_death(open_query, routes)
