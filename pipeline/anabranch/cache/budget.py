"""What may be spent on guesses: a share of the back ends' work, and only while they come true."""

from __future__ import annotations

from typing import Final

__all__ = ["Budget"]

_HORIZON_MS: Final = 60_000.0
"""Back-end work that is remembered, about: what was saved up is not spent all at once."""
_MIN_OUTCOMES: Final = 30
_MAX_OUTCOMES: Final = 200


class Budget:
    """Budget and judgement of one kind of guess.

    Args:
        share: of the back ends' work, guesses included, that guesses may cause.
        precision_floor: with fewer of its guesses asked for, it is off, and stays off: no more
            guesses are made that could prove it right.
    """

    def __init__(self, share: float = 0.1, precision_floor: float = 0.25) -> None:
        self._share = share
        self._floor = precision_floor
        self._work_ms = 0.0
        self._spent_ms = 0.0
        self._outcomes = 0.0
        self._used = 0.0
        self.made = 0
        self.came_true = 0
        self.total_spent_ms = 0.0

    def worked(self, cost_ms: float) -> None:
        """Back ends worked for a question that was asked."""
        self._work_ms += cost_ms
        if self._work_ms > _HORIZON_MS:
            self._work_ms /= 2
            self._spent_ms /= 2

    def spend(self, cost_ms: float) -> bool:
        """Take the cost of a guess out of the budget; False if it is not to be made."""
        total_ms = self._work_ms + self._spent_ms + cost_ms
        if not self.on or self._spent_ms + cost_ms > self._share * total_ms:
            return False
        self._spent_ms += cost_ms
        self.total_spent_ms += cost_ms
        self.made += 1
        return True

    def settle(self, used: bool) -> None:
        """A guess was asked for, or never was."""
        if self._outcomes >= _MAX_OUTCOMES:
            self._outcomes /= 2
            self._used /= 2
        self._outcomes += 1
        self._used += used
        self.came_true += used

    @property
    def precision(self) -> float:
        """Share of the latest guesses that were asked for; 1 before any has been settled."""
        return self._used / self._outcomes if self._outcomes else 1.0

    @property
    def on(self) -> bool:
        """Whether guesses are made at all."""
        return self._outcomes < _MIN_OUTCOMES or self.precision >= self._floor

    def stats(self) -> dict[str, float]:
        """What was guessed, and what came of it."""
        return {
            "on": float(self.on),
            "made": self.made,
            "came_true": self.came_true,
            "precision": self.precision,
            "spent_ms": self.total_spent_ms,
        }
