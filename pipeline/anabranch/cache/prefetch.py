"""Fetch ahead what tends to be asked next: a first-order Markov chain over questions."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final

from anabranch.cache.budget import Budget
from anabranch.cache.keys import Question

__all__ = ["Prefetcher"]

_SUCCESSORS: Final = 8
_MIN_SEEN: Final = 3
"""Times that a question must have been followed by another before anything is guessed."""
_FORGET_AT: Final = 64
_STREAMS: Final = 1_000


class Prefetcher:
    """Learns which question follows which, and proposes those likely enough.

    Only what follows within one scope is learned: nothing that a tenant asks moves another's.

    Args:
        threshold: least probability of a question that is proposed.
        max_keys: questions whose followers are remembered.
    """

    def __init__(
        self,
        budget: Budget | None = None,
        *,
        threshold: float = 0.15,
        max_keys: int = 5_000,
    ) -> None:
        self.budget = budget if budget is not None else Budget()
        self._threshold = threshold
        self._max_keys = max_keys
        self._followers: OrderedDict[Question, dict[Question, int]] = OrderedDict()
        self._last: OrderedDict[Hashable, Question] = OrderedDict()
        self._guessed: OrderedDict[Question, float] = OrderedDict()

    def asked(self, key: Question, now_ms: float, stream: Hashable = None) -> None:
        """Learn from a question; `stream` names who asks, if that is known."""
        self._settle(key, now_ms)
        place = (key[1], stream)
        before = self._last.pop(place, None)
        self._last[place] = key
        if len(self._last) > _STREAMS:
            self._last.popitem(last=False)
        if before is not None and before != key:
            self._count(before, key)

    def likely(self, key: Question) -> list[tuple[Question, float]]:
        """Questions that tend to follow, with their probabilities, likeliest first."""
        followers = self._followers.get(key, {})
        seen = sum(followers.values())
        if seen < _MIN_SEEN:
            return []
        likely = [(other, count / seen) for other, count in followers.items()]
        likely.sort(key=lambda pair: pair[1], reverse=True)
        return [pair for pair in likely if pair[1] >= self._threshold]

    def guess(self, key: Question, cost_ms: float, expires_ms: float) -> bool:
        """Fetch a likely question, which is not held, ahead? True if the budget pays for it.

        It has come true if the question is asked before `expires_ms`.
        """
        if key in self._guessed or not self.budget.spend(cost_ms):
            return False
        self._guessed[key] = expires_ms
        if len(self._guessed) > self._max_keys:
            self._guessed.popitem(last=False)
            self.budget.settle(False)
        return True

    def _settle(self, key: Question, now_ms: float) -> None:
        expires_ms = self._guessed.pop(key, None)
        if expires_ms is not None:
            self.budget.settle(now_ms < expires_ms)
        while self._guessed and next(iter(self._guessed.values())) <= now_ms:
            self._guessed.popitem(last=False)
            self.budget.settle(False)

    def _count(self, before: Question, key: Question) -> None:
        followers = self._followers.setdefault(before, {})
        self._followers.move_to_end(before)
        followers[key] = followers.get(key, 0) + 1
        if len(followers) > _SUCCESSORS or followers[key] >= _FORGET_AT:
            faded = {other: count // 2 for other, count in followers.items() if count > 1}
            self._followers[before] = faded
        if len(self._followers) > self._max_keys:
            self._followers.popitem(last=False)
