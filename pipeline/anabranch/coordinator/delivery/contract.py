"""How answers and commits reach the broker: one of two ways, the configuration's `mode`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from anabranch.coordinator.delivery.commits import Commit
from anabranch.coordinator.query.outbox import AnswerOut
from anabranch.kafka.transport import Committed

__all__ = ["Delivery"]


class Delivery(Protocol):
    """`at_least_once` or `exactly_once`."""

    async def open(self, numbers: Collection[int]) -> None:
        """Make partitions ours alone; called before what is committed of them is read."""
        ...

    def keep(self, numbers: Collection[int]) -> None:
        """All others are somebody else's now."""
        ...

    async def answer(self, answers: Sequence[AnswerOut]) -> None:
        """Hand answers over, or defer them while their partition is held."""
        ...

    async def commit(self, commits: Sequence[Commit]) -> None:
        """Commit progress, and tell the partitions.

        Raises:
            GenerationLost: the group goes on without us.
            BrokerUnavailable: nobody answers; it may be tried again.
        """
        ...

    async def write(self, commits: Mapping[int, Committed]) -> None:
        """Commit for partitions that are not being worked on yet; raises as `commit` does."""
        ...

    async def stop(self) -> None:
        """Let go of everything."""
        ...
