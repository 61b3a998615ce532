"""Answers go out at once, and are committed once the broker has them.

After a failure in between there may be a second answer, with another `attempt`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Final

from anabranch.coordinator.delivery.answers import hand_over
from anabranch.coordinator.delivery.commits import Commit
from anabranch.coordinator.delivery.dead_letters import DeadLetters
from anabranch.coordinator.delivery.fencing import Fencing
from anabranch.coordinator.delivery.refused import Refused
from anabranch.coordinator.delivery.reply_topics import ReplyTopics
from anabranch.coordinator.query.claim import Claim
from anabranch.coordinator.query.counters import Counters
from anabranch.coordinator.query.outbox import AnswerOut
from anabranch.coordinator.query.owned import OwnedPartitions
from anabranch.errors import BrokerError, RecordRefused, TopicError
from anabranch.kafka.topics import Topics
from anabranch.kafka.transport import (
    Committed,
    GroupConsumer,
    Outcome,
    Producer,
    TopicPartition,
)
from anabranch.runtime.in_flight import InFlight

__all__ = ["AtLeastOnce"]

_REPLY_TIMEOUT_S: Final = 5.0


class AtLeastOnce:
    """`Delivery` by an idempotent producer and the group's own commits.

    Args:
        producer: for answers.
        consumer: of the group, whose offsets are committed.
        replies: for copies to `reply_to`: a bad topic must not disturb the idempotent stream.
    """

    def __init__(
        self,
        topics: Topics,
        owned: OwnedPartitions,
        producer: Producer,
        replies: Producer,
        consumer: Callable[[], GroupConsumer],
        dead_letters: DeadLetters,
        fencing: Fencing,
        in_flight: InFlight,
        reply_topics: ReplyTopics,
        counters: Counters,
    ) -> None:
        self._topics = topics
        self._owned = owned
        self._consumer = consumer
        self._producer = producer
        self._replies = replies
        self._dead_letters = dead_letters
        self._refused = Refused(dead_letters, counters)
        self._fencing = fencing
        self._in_flight = in_flight
        self._reply_topics = reply_topics
        self._counters = counters

    async def open(self, numbers: Collection[int]) -> None:
        """Nothing to do: a commit with the group's generation fences whoever had them."""

    def keep(self, numbers: Collection[int]) -> None:
        """Nothing to do."""

    async def answer(self, answers: Sequence[AnswerOut]) -> None:
        by_claim: dict[Claim, list[AnswerOut]] = {}
        for out in answers:
            if self._owned.defers(out):
                continue
            if out.reply_to is not None:
                self._in_flight.run(self._reply_first(out))
            else:
                by_claim.setdefault(out.claim, []).append(out)
        for claim, ready in by_claim.items():
            await self._fencing.ensure_member()
            await self._produce(claim, [out for out in ready if not self._owned.defers(out)])

    async def commit(self, commits: Sequence[Commit]) -> None:
        await self.write({commit.claim.number: commit.committed for commit in commits})
        for commit in commits:
            commit.written(self._owned)

    async def write(self, commits: Mapping[int, Committed]) -> None:
        topic = self._topics.queries
        if commits:
            offsets = {TopicPartition(topic, n): commit for n, commit in commits.items()}
            await self._consumer().commit(offsets)

    async def stop(self) -> None:
        """Nothing to do: the producers are the coordinator's."""

    async def _produce(self, claim: Claim, answers: Sequence[AnswerOut]) -> None:
        if answers and self._owned.find(claim) is not None:
            sent = await hand_over(self._producer, self._topics.results, claim, answers)
            self._in_flight.track(sent, partial(self._acked, claim, answers))

    def _acked(
        self, claim: Claim, answers: Sequence[AnswerOut], outcomes: Sequence[Outcome]
    ) -> None:
        for out, outcome in zip(answers, outcomes, strict=True):
            if isinstance(outcome, RecordRefused):
                self._in_flight.run(self._instead(out, outcome))
            else:
                self._owned.acked(claim, out.offset, outcome)

    async def _instead(self, out: AnswerOut, error: RecordRefused) -> None:
        offset = await self._refused.instead(out, error, self._alone)
        self._owned.acked(out.claim, out.offset, offset)

    async def _alone(self, out: AnswerOut) -> Outcome:
        await self._fencing.ensure_member()
        sent = await hand_over(self._producer, self._topics.results, out.claim, [out])
        [outcome] = await sent
        return outcome

    async def _reply_first(self, out: AnswerOut) -> None:
        """The copy goes first: an answer found in `results` means that both are out.

        With its copy out an answer is not held any more: whoever has the partition next would send
        another one. A rebalance waits for both.
        """
        await self._fencing.ensure_member()
        try:
            objection = await self._reply_topics.objection(out.reply_to or "")
            if objection is not None:
                raise TopicError(objection)
            async with asyncio.timeout(_REPLY_TIMEOUT_S):
                await self._replies.send_and_wait(
                    out.reply_to or "", out.value, key=out.key, headers=out.headers
                )
        except (BrokerError, TimeoutError) as error:
            self._counters.replies_lost += 1
            await self._dead_letters.reply(out, error)
        await self._fencing.ensure_member()
        await self._produce(out.claim, [out])
