"""How often a partition's transactions begin: adaptive, between 50 and 250 ms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

__all__ = ["TransactionInterval"]

_LEAST_S: Final = 0.050
_MOST_S: Final = 0.250
_EASY: Final = 4
"""Partitions of a process that may go at the shortest interval; with more, each waits longer."""
_SHARE: Final = 4
"""Of the time between two beginnings, a transaction takes one part in so many at most."""


class TransactionInterval:
    """Leaves more time between transactions that take longer, so that each carries more.

    The first after a rest begins at once: what comes alone waits for nobody. A transaction costs
    the broker as much as ten to thirty records (`benchmarks/transactions.py`), so that many
    partitions go slower each.

    Args:
        now_s: a monotonic clock, in seconds.
        peers: how many partitions the process has, this one included.
    """

    def __init__(self, now_s: Callable[[], float], peers: Callable[[], int]) -> None:
        self._now_s = now_s
        self._peers = peers
        self._began_s = float("-inf")
        self._took_s = 0.0

    def wait_s(self) -> float:
        """How long until the next may begin."""
        least_s = _LEAST_S * max(1.0, self._peers() / _EASY)
        between_s = min(max(_SHARE * self._took_s, least_s), _MOST_S)
        return max(0.0, self._began_s + between_s - self._now_s())

    def start(self) -> None:
        self._began_s = self._now_s()

    def finish(self) -> None:
        self._took_s = self._now_s() - self._began_s
