"""What a coordinator's pure parts want sent; the publisher takes it from here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from anabranch.contract.events import TaskLayer
from anabranch.kafka.transport import Headers, Record

if TYPE_CHECKING:
    from anabranch.coordinator.query.partition import QueryPartition

__all__ = ["AnswerOut", "DeadLetterOut", "Outbox", "TaskOut"]


class TaskOut(NamedTuple):
    """A task for a worker group."""

    topic: str
    partition: int
    value: bytes
    headers: Headers
    owner: QueryPartition | None = None
    """Told, with the next two, if the broker refuses it; None for what nobody has asked."""
    offset: int = -1
    layers: Sequence[TaskLayer] = ()


class AnswerOut(NamedTuple):
    """An answer; its query's offset is done when `results` has acknowledged it."""

    owner: QueryPartition
    offset: int
    key: bytes
    value: bytes
    headers: Headers
    reply_to: str | None = None
    is_least: bool = False
    """It says that the broker refused another one."""


class DeadLetterOut(NamedTuple):
    """A record nobody could read. `answer` goes out, or else `offset` is done, after it."""

    record: Record
    reason: str
    stack: str = ""
    """The error's `stack_digest`."""
    owner: QueryPartition | None = None
    answer: AnswerOut | None = None


class Outbox:
    """Collects during a turn; emptied by the publisher after it."""

    __slots__ = ("answers", "dead_letters", "tasks")

    def __init__(self) -> None:
        self.tasks: list[TaskOut] = []
        self.answers: list[AnswerOut] = []
        self.dead_letters: list[DeadLetterOut] = []

    def __bool__(self) -> bool:
        return bool(self.tasks or self.answers or self.dead_letters)

    def take(self) -> Outbox:
        """Everything collected so far, leaving this one empty."""
        taken = Outbox()
        taken.tasks, self.tasks = self.tasks, []
        taken.answers, self.answers = self.answers, []
        taken.dead_letters, self.dead_letters = self.dead_letters, []
        return taken
