"""Where a task goes: the partition of its group with the least of our own outstanding work."""

from __future__ import annotations

from typing import TypeAlias

__all__ = ["Outstanding", "Route"]

Route: TypeAlias = tuple[str, int]
"""A worker group, and the partition of its task topics."""


class Outstanding:
    """Slots sent and not yet answered, by group and partition, as this coordinator knows them."""

    def __init__(self) -> None:
        self.latest = ""
        """The group that was sent to last."""
        self._slots: dict[str, list[int]] = {}
        self._next = 0

    def choose(self, group: str, partitions: int) -> int:
        """The least loaded partition; equals take turns, so that an idle group is used evenly."""
        slots = self._slots.setdefault(group, [0] * partitions)
        if len(slots) < partitions:
            slots += [0] * (partitions - len(slots))
        self._next += 1
        start = self._next % partitions
        least = min(slots)
        return slots.index(least, start) if least in slots[start:] else slots.index(least)

    def sent(self, group: str, partition: int) -> None:
        """A slot was sent to this partition."""
        self._slots[group][partition] += 1
        self.latest = group

    def ended(self, group: str, partition: int) -> None:
        """It was answered, or nobody waits for it any more."""
        self._slots[group][partition] -= 1

    def total(self, group: str) -> int:
        """Slots outstanding in a group."""
        return sum(self._slots.get(group, ()))
