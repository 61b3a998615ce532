"""Questions whose workers died: a layer may crash its process on one question only.

Whoever gets the task next dies of it, too. Every question that a dead worker had is marked; one
that is answered is cleared; one with three marks in ten minutes is not asked any more. Who shared
its last three workers' fate with such a question is condemned with it, for those ten minutes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from anabranch.cache.keys import Question

if TYPE_CHECKING:
    from anabranch.coordinator.brain import Brain
    from anabranch.coordinator.partition import QueryPartition

__all__ = ["DEATHS", "Mortality", "mourn"]

DEATHS: Final = 3
_WINDOW_MS: Final = 600_000.0
_MOST: Final = 10_000
"""Questions remembered; of more, those longest without a death are forgotten."""


class Mortality:
    """Deaths by question. `now_ms` is the broker's clock."""

    def __init__(self) -> None:
        self._deaths: OrderedDict[Question, tuple[float, ...]] = OrderedDict()

    def died(self, questions: Iterable[Question], now_ms: float) -> None:
        """One worker died; it had these."""
        for question in questions:
            self._deaths[question] = (*self._recent(question, now_ms), now_ms)[-DEATHS:]
            self._deaths.move_to_end(question)
        while len(self._deaths) > _MOST:
            self._deaths.popitem(last=False)

    def survived(self, question: Question) -> None:
        """Workers answered it."""
        self._deaths.pop(question, None)

    def condemns(self, question: Question, now_ms: float) -> bool:
        """Whether it is not to be asked any more."""
        return bool(self._deaths) and len(self._recent(question, now_ms)) >= DEATHS

    def _recent(self, question: Question, now_ms: float) -> tuple[float, ...]:
        deaths = self._deaths.get(question, ())
        return tuple(at_ms for at_ms in deaths if now_ms - at_ms < _WINDOW_MS)


def mourn(brain: Brain, partitions: Mapping[int, QueryPartition]) -> None:
    """Mark what workers had that died lately, and give up what is condemned now."""
    now_ms = brain.now_ms()
    for member, until_ms in brain.directory.deaths(now_ms):
        had = [
            (partition, open_query)
            for partition in partitions.values()
            if not partition.held
            for open_query in partition.asked_of(member, until_ms)
        ]
        brain.mortality.died({open_query.key for _, open_query in had}, now_ms)
        for partition, open_query in had:
            partition.on_death(open_query.offset)
