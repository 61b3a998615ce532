"""How often a partition's transactions begin: adaptive, between 50 and 250 ms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

__all__ = ["Pace"]

_LEAST_S: Final = 0.050
_MOST_S: Final = 0.250
_SHARE: Final = 4
"""Of the time between two beginnings, a transaction takes one part in so many at most."""


class Pace:
    """Leaves more time between transactions that take longer, so that each carries more.

    The first after a rest begins at once: what comes alone waits for nobody.

    Args:
        now_s: a monotonic clock, in seconds.
    """

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._began_s = float("-inf")
        self._took_s = 0.0

    def wait_s(self) -> float:
        """How long until the next may begin."""
        between_s = min(max(_SHARE * self._took_s, _LEAST_S), _MOST_S)
        return max(0.0, self._began_s + between_s - self._now_s())

    def begins(self) -> None:
        self._began_s = self._now_s()

    def ended(self) -> None:
        self._took_s = self._now_s() - self._began_s
