"""What a coordinator's pure parts want sent; the publisher takes it from here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from anabranch.contract.events import TaskLayer
from anabranch.coordinator.query.claim import Claim
from anabranch.coordinator.query.counters import Counters
from anabranch.kafka.dead_letters import stack_digest
from anabranch.kafka.transport import Headers, Record
from anabranch.runtime.containment import describe

__all__ = ["AnswerOut", "DeadLetterOut", "Effects", "Outbox", "TaskOut"]


class TaskOut(NamedTuple):
    """A task for a worker group."""

    topic: str
    partition: int
    value: bytes
    headers: Headers
    claim: Claim | None = None
    """Whose partition is told, with the next two, if the broker refuses it; nobody's: None."""
    offset: int = -1
    layers: Sequence[TaskLayer] = ()


class AnswerOut(NamedTuple):
    """An answer; its query's offset is done when `results` has acknowledged it."""

    claim: Claim
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
    claim: Claim | None = None
    answer: AnswerOut | None = None


class Effects(NamedTuple):
    """What is to be sent."""

    tasks: list[TaskOut]
    answers: list[AnswerOut]
    dead_letters: list[DeadLetterOut]


class Outbox:
    """Collects during a turn; emptied by the publisher after it."""

    __slots__ = ("_counters", "answers", "dead_letters", "tasks")

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self.tasks: list[TaskOut] = []
        self.answers: list[AnswerOut] = []
        self.dead_letters: list[DeadLetterOut] = []

    def __bool__(self) -> bool:
        return bool(self.tasks or self.answers or self.dead_letters)

    def unreadable(self, record: Record, error: Exception) -> None:
        """A record of no query's cannot be read or handled."""
        self.dead_letter(record, describe(error), stack_digest(error))

    def dead_letter(
        self,
        record: Record,
        reason: str,
        stack: str = "",
        claim: Claim | None = None,
        answer: AnswerOut | None = None,
    ) -> None:
        """A record becomes a dead letter; see `DeadLetterOut`."""
        self._counters.dead_letters += 1
        self.dead_letters.append(DeadLetterOut(record, reason, stack, claim, answer))

    def take(self) -> Effects:
        """Everything collected so far, leaving this one empty."""
        taken = Effects(self.tasks, self.answers, self.dead_letters)
        self.tasks, self.answers, self.dead_letters = [], [], []
        return taken
