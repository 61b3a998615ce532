"""Refresh ahead of expiry what is asked most, so that those who ask it never wait."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from anabranch.cache.budget import Budget
from anabranch.cache.keys import Question

__all__ = ["Ageing", "Warmer"]

_MOST_REMEMBERED: Final = 5_000


class Ageing(Struct, frozen=True):
    """A question that is held, with layers that will expire before long.

    `hits` are its hits so far, `cost_ms` what fetching those layers takes, `limit` what they
    were asked for.
    """

    key: Question
    layers: tuple[str, ...]
    limit: int
    hits: int
    cost_ms: float


class Warmer:
    """Chooses what to refresh: most hits x cost since the last refresh, within the budget.

    To be asked a few times in a quarter of the shortest TTL, with `CrossLayerCache.ageing`.
    What was refreshed and then not asked is not refreshed again, and tells against warming.
    """

    def __init__(self, budget: Budget | None = None) -> None:
        self.budget = budget if budget is not None else Budget()
        self._refreshed: dict[Question, int] = {}
        """Hits at the refresh of what was refreshed, until that ages in its turn."""
        self._under_way: set[Question] = set()

    def propose(self, ageing: Iterable[Ageing], most: int = 100) -> list[Ageing]:
        """What to refresh now, the most useful first; each is paid for and under way then."""
        found = {candidate.key: candidate for candidate in ageing}
        self._under_way &= found.keys()
        gains = [
            (self._hits_since(candidate) * candidate.cost_ms, candidate)
            for key, candidate in found.items()
            if key not in self._under_way
        ]
        gains.sort(key=lambda pair: pair[0], reverse=True)
        chosen = []
        for gain, candidate in gains[:most]:
            if gain > 0 and self.budget.spend(candidate.cost_ms):
                self._refreshed[candidate.key] = candidate.hits
                self._under_way.add(candidate.key)
                chosen.append(candidate)
        while len(self._refreshed) > _MOST_REMEMBERED:
            del self._refreshed[next(iter(self._refreshed))]
            self.budget.settle(False)  # it has been evicted since
        return chosen

    def _hits_since(self, candidate: Ageing) -> int:
        before = self._refreshed.pop(candidate.key, None)
        if before is None:
            return candidate.hits
        self.budget.settle(candidate.hits > before)
        return candidate.hits - before
