"""What is to be committed of a partition, and what was."""

from __future__ import annotations

from typing import NamedTuple

from anabranch.coordinator.partitions.progress import Progress, encode
from anabranch.coordinator.query.partition import QueryPartition
from anabranch.kafka.transport import Committed

__all__ = ["Entry", "entry"]


class Entry(NamedTuple):
    """A partition's progress at a moment, as it is to be committed."""

    partition: QueryPartition
    progress: Progress
    commit: Committed

    @property
    def is_new(self) -> bool:
        """Whether it says more than what this instance committed last."""
        return self.commit != self.partition.written

    def written(self) -> None:
        """The broker has it."""
        self.partition.written = self.commit
        self.partition.on_committed(self.progress)


def entry(partition: QueryPartition) -> Entry:
    """The partition as it is now; notes whether its window still fits into the metadata."""
    progress = partition.snapshot()
    metadata, whole = encode(progress)
    partition.full = not whole
    return Entry(partition, progress, Committed(progress.offset, metadata))
