"""From attempts to tasks: one per worker group, or one per slot where work is distributed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from anabranch.contract.events import TaskLayer
from anabranch.dispatch.attempts import Attempt

__all__ = ["bundle", "task_layers"]


def bundle(attempts: Sequence[Attempt]) -> Iterator[tuple[str, list[Attempt]]]:
    """Attempts that travel in one task, with their group."""
    together: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        group = attempt.layer.group
        if attempt.layer.source == "distributed":
            yield group, [attempt]
        else:
            together.setdefault(group, []).append(attempt)
    yield from together.items()


def task_layers(attempts: Sequence[Attempt]) -> list[TaskLayer]:
    """The slots of a task as they travel."""
    return [
        TaskLayer(
            layer=attempt.layer.name,
            shard=attempt.shard,
            shards=attempt.layer.shards,
            attempt=attempt.number,
        )
        for attempt in attempts
    ]
