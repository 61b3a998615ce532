"""What is to be committed of a partition."""

from __future__ import annotations

from typing import NamedTuple

from anabranch.coordinator.progress.metadata import encode
from anabranch.coordinator.progress.window import Progress
from anabranch.coordinator.query.claim import Claim
from anabranch.coordinator.query.owned import OwnedPartitions
from anabranch.coordinator.query.partition import QueryPartition
from anabranch.kafka.transport import Committed

__all__ = ["Commit"]


class Commit(NamedTuple):
    """A partition's progress at a moment, as it is to be committed."""

    claim: Claim
    progress: Progress
    committed: Committed

    @classmethod
    def of(cls, partition: QueryPartition) -> Commit:
        """The partition as it is now; notes whether its window still fits into the metadata."""
        progress = partition.progress.snapshot()
        metadata, whole = encode(progress)
        partition.full = not whole
        return cls(partition.claim, progress, Committed(progress.offset, metadata))

    def written(self, owned: OwnedPartitions) -> None:
        """The broker has it."""
        if (partition := owned.find(self.claim)) is not None:
            partition.written = self.committed
        owned.committed(self.claim, self.progress)
