"""Answers go out at once, and are committed once the broker has them.

After a failure in between there may be a second answer, with another `attempt`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Final

from anabranch.coordinator.delivery.dead_letters import DeadLetters
from anabranch.coordinator.delivery.fencing import Fencing
from anabranch.coordinator.delivery.in_flight import InFlight
from anabranch.coordinator.delivery.refused import Refused
from anabranch.coordinator.delivery.reply_topics import ReplyTopics
from anabranch.coordinator.partitions.commits import Entry
from anabranch.coordinator.query.brain import Brain
from anabranch.coordinator.query.outbox import AnswerOut
from anabranch.errors import BrokerError, RecordRefused, TopicError
from anabranch.kafka.transport import Acked, Committed, GroupConsumer, Producer, TopicPartition

__all__ = ["AtLeastOnce"]

_REPLY_TIMEOUT_S: Final = 5.0


class AtLeastOnce:
    """`Delivery` by an idempotent producer and the group's own commits.

    Args:
        producer: for answers.
        replies: for copies to `reply_to`: a bad topic must not disturb the idempotent stream.
    """

    def __init__(
        self,
        brain: Brain,
        producer: Producer,
        replies: Producer,
        burial: DeadLetters,
        fencing: Fencing,
        in_flight: InFlight,
        reply_topics: ReplyTopics,
    ) -> None:
        self.consumer: GroupConsumer | None = None
        self._brain = brain
        self._producer = producer
        self._replies = replies
        self._burial = burial
        self._refused = Refused(brain, burial)
        self._fencing = fencing
        self._in_flight = in_flight
        self._reply_topics = reply_topics

    async def open(self, numbers: Collection[int]) -> None:
        """Nothing to do: a commit with the group's generation fences whoever had them."""

    def keep(self, numbers: Collection[int]) -> None:
        """Nothing to do."""

    async def answer(self, out: AnswerOut) -> None:
        if out.owner.held:
            out.owner.deferred.append(out)
        elif out.reply_to is not None:
            self._in_flight.run(self._reply_first(out))
        else:
            await self._send(out)

    async def commit(self, entries: Sequence[Entry]) -> None:
        await self.write({entry.partition.number: entry.commit for entry in entries})
        for entry in entries:
            entry.written()

    async def write(self, commits: Mapping[int, Committed]) -> None:
        if self.consumer is None:
            raise RuntimeError("the group consumer is not attached")
        topic = self._brain.topics.queries
        if commits:
            await self.consumer.commit({TopicPartition(topic, n): c for n, c in commits.items()})

    async def stop(self) -> None:
        """Nothing to do: the producers are the coordinator's."""

    async def _send(self, out: AnswerOut) -> None:
        await self._fencing.ensure_member()
        if out.owner.held:
            out.owner.deferred.append(out)
        else:
            await self._produce(out)

    async def _produce(self, out: AnswerOut) -> None:
        if out.owner.lost:
            return
        try:
            sent = await self._hand_over(out)
        except RecordRefused as error:
            self._in_flight.run(self._instead(out, error))
        else:
            self._in_flight.add(sent, partial(_answered, out), partial(self._instead, out))

    async def _hand_over(self, out: AnswerOut, *, alone: bool = False) -> asyncio.Future[Acked]:
        return await self._producer.send(
            self._brain.topics.results,
            out.value,
            key=out.key,
            partition=out.owner.number,
            headers=out.headers,
            alone=alone,
        )

    async def _instead(self, out: AnswerOut, error: RecordRefused) -> None:
        offset = await self._refused.instead(out, error, self._alone)
        if not out.owner.lost:
            out.owner.on_acked(out.offset, offset)

    async def _alone(self, out: AnswerOut) -> Acked:
        await self._fencing.ensure_member()
        return await (await self._hand_over(out, alone=True))

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
            self._brain.counters.replies_lost += 1
            await self._burial.reply(out, error)
        await self._fencing.ensure_member()
        await self._produce(out)


def _answered(out: AnswerOut, acked: Acked) -> None:
    out.owner.on_acked(out.offset, acked.offset)
