"""Under which epochs partitions of `queries` were given back by somebody who lived on."""

from __future__ import annotations

from typing import Final

from anabranch.contract.bounds import remember

__all__ = ["ReleasedEpochs"]

MAX_PARTITIONS = 16_384
"""Of more, what was longest not released is forgotten."""
MAX_EPOCHS: Final = 8
"""Of a partition: what somebody invents does not take the place of a true one at once."""


class ReleasedEpochs:
    """The latest epochs by partition, as their owners told of them."""

    def __init__(self) -> None:
        self._epochs: dict[int, tuple[int, ...]] = {}

    def add(self, partition: int, epoch: int) -> None:
        """Whoever had a partition under this epoch lived longer than that."""
        known = self._epochs.get(partition, ())
        if epoch not in known:
            remember(self._epochs, partition, (*known, epoch)[-MAX_EPOCHS:], MAX_PARTITIONS)

    def has(self, partition: int, epoch: int) -> bool:
        """Whether no query killed who had it under this epoch."""
        return epoch in self._epochs.get(partition, ())
