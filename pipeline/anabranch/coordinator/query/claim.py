"""Under what a partition is ours: what is sent on its behalf names it."""

from __future__ import annotations

__all__ = ["Claim"]


class Claim:
    """One ownership of a partition of `queries`: each takeover makes a new one.

    Compared by identity. Whatever comes back under a claim that `OwnedPartitions` does not find is
    somebody else's business by now, even if the same process has the partition again.
    """

    __slots__ = ("epoch", "number")

    def __init__(self, number: int, epoch: int) -> None:
        self.number = number
        """Of the partition."""
        self.epoch = epoch
        """As it was committed: the first part of every attempt's number."""
