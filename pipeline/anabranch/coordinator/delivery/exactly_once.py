"""Answers and the commit that says so go out together, in a transaction of their partition.

One transactional producer per owned partition: its id names the partition, so whoever takes it
over fences the owner before, and with it whatever that one has not committed. Subscribers that
read_committed see one answer to each query. A transaction that fails is not mended: all that is
held of its partition is void, and the partition is taken over anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from anabranch.coordinator.delivery.answers import hand_over
from anabranch.coordinator.delivery.commits import Commit
from anabranch.coordinator.delivery.dead_letters import DeadLetters
from anabranch.coordinator.delivery.fencing import Fencing
from anabranch.coordinator.delivery.refused import Refused
from anabranch.coordinator.delivery.reply_topics import ReplyTopics
from anabranch.coordinator.delivery.transaction_interval import TransactionInterval
from anabranch.coordinator.query.claim import Claim
from anabranch.coordinator.query.counters import Counters
from anabranch.coordinator.query.outbox import AnswerOut
from anabranch.coordinator.query.owned import OwnedPartitions
from anabranch.coordinator.query.partition import QueryPartition
from anabranch.errors import BrokerError, ProduceError, ProducerFenced, RecordRefused, TopicError
from anabranch.kafka.topics import Topics
from anabranch.kafka.transport import (
    Acked,
    Committed,
    Outcome,
    TopicPartition,
    TransactionalProducer,
)
from anabranch.runtime.in_flight import InFlight

__all__ = ["ExactlyOnce"]

log = logging.getLogger(__name__)

_COPY_TIMEOUT_S: Final = 2.0
_MANY: Final = 16
"""Partitions of one process above which its transactions are many and small."""


class _Queue:
    """A partition that is ours alone, and what waits for its next transaction."""

    def __init__(self, producer: TransactionalProducer, peers: Callable[[], int]) -> None:
        self.producer = producer
        self.interval = TransactionInterval(asyncio.get_running_loop().time, peers)
        self.waiting: list[AnswerOut] = []
        self.running: asyncio.Task[None] | None = None


class ExactlyOnce:
    """`Delivery` by transactions.

    Args:
        group: of the coordinators, whose offsets are committed.
        producer_of: makes the producer of a partition.
        lost: called with a partition's number when its transaction failed, and why.
        in_flight: runs the transactions, beside everything else.
    """

    def __init__(
        self,
        topics: Topics,
        owned: OwnedPartitions,
        group: str,
        producer_of: Callable[[int], TransactionalProducer],
        lost: Callable[[int, BrokerError], None],
        dead_letters: DeadLetters,
        fencing: Fencing,
        in_flight: InFlight,
        reply_topics: ReplyTopics,
        counters: Counters,
    ) -> None:
        self._topics = topics
        self._owned = owned
        self._lost = lost
        self._group = group
        self._producer_of = producer_of
        self._dead_letters = dead_letters
        self._refused = Refused(dead_letters, counters)
        self._fencing = fencing
        self._in_flight = in_flight
        self._queues: dict[int, _Queue] = {}
        self._reply_topics = reply_topics
        self._counters = counters

    async def open(self, numbers: Collection[int]) -> None:
        if len(self._queues) <= _MANY < len({*self._queues, *numbers}):
            log.warning(
                "over %d partitions in one process: exactly_once is faster with more coordinators",
                _MANY,
            )
        self._close(numbers)
        # All of them come to an end: one that is opened late must not replace a newer one.
        for outcome in await asyncio.gather(*map(self._open, numbers), return_exceptions=True):
            if outcome is not None:
                raise outcome

    def keep(self, numbers: Collection[int]) -> None:
        self._close(self._queues.keys() - set(numbers))

    def _close(self, numbers: Collection[int]) -> None:
        for number in numbers:
            if (queue := self._queues.pop(number, None)) is not None:
                self._in_flight.run(_stop(queue.producer))

    async def answer(self, answers: Sequence[AnswerOut]) -> None:
        for out in answers:
            if self._owned.find(out.claim) is None or self._owned.defers(out):
                continue
            if (queue := self._queues.get(out.claim.number)) is not None:
                queue.waiting.append(out)
                self._wake(queue, out.claim)

    async def commit(self, commits: Sequence[Commit]) -> None:
        running = [
            self._wake(queue, commit.claim)
            for commit in commits
            if (queue := self._queues.get(commit.claim.number)) is not None
        ]
        if running:
            await asyncio.wait(running)

    async def write(self, commits: Mapping[int, Committed]) -> None:
        await asyncio.gather(*(self._write(n, commit) for n, commit in commits.items()))

    async def stop(self) -> None:
        queues, self._queues = self._queues, {}
        await asyncio.gather(*(_stop(queue.producer) for queue in queues.values()))

    # ── details ────────────────────────────────────────────────────────────────────────────

    async def _open(self, number: int) -> None:
        producer = self._producer_of(number)
        await producer.start()
        self._queues[number] = _Queue(producer, lambda: len(self._queues))

    async def _write(self, number: int, commit: Committed) -> None:
        if (queue := self._queues.get(number)) is None:
            raise ProducerFenced(f"partition {number} is not ours any more")
        await queue.producer.begin()
        await queue.producer.commit(self._offsets(number, commit), self._group)

    def _wake(self, queue: _Queue, claim: Claim) -> asyncio.Task[None]:
        """The transaction that runs or is about to; a new one if there is none."""
        if queue.running is None or queue.running.done():
            queue.running = self._in_flight.run(self._run(queue, claim))
        return queue.running

    async def _run(self, queue: _Queue, claim: Claim) -> None:
        """One transaction, as soon as its interval allows."""
        await asyncio.sleep(queue.interval.wait_s())
        queue.interval.start()
        try:
            await self._fencing.ensure_member()
            if (partition := self._owned.find(claim)) is not None:
                await self._transact(queue, partition)
        except BrokerError as error:
            self._give_up(queue, claim, error)
            return
        queue.interval.finish()
        if self._owned.find(claim) is None:
            queue.waiting = []  # nobody's: the next one would leave them too, for ever
        if queue.waiting:  # came while it ran; this task is not done, so `_wake` would keep it
            queue.running = self._in_flight.run(self._run(queue, claim))

    def _give_up(self, queue: _Queue, claim: Claim, error: BrokerError) -> None:
        if self._queues.get(claim.number) is queue:
            self._close([claim.number])
            self._lost(claim.number, error)

    async def _transact(self, queue: _Queue, partition: QueryPartition) -> None:
        """Answers are done in the commit that goes out with them.

        If that fails they are not: but then the partition's whole state is thrown away.
        """
        answers, queue.waiting = queue.waiting, []
        may = await asyncio.gather(*map(self._may_reply, answers))
        copies = [out for out, wanted in zip(answers, may, strict=True) if wanted]
        await queue.producer.begin()
        offsets = await self._send(queue, partition.claim, answers, copies)
        for out, offset in zip(answers, offsets, strict=True):
            partition.on_acked(out.offset, offset)
        commit = Commit.of(partition)
        commits = self._offsets(partition.number, commit.committed)
        await queue.producer.commit(commits, self._group)
        commit.written(self._owned)

    async def _send(
        self,
        queue: _Queue,
        claim: Claim,
        answers: Sequence[AnswerOut],
        copies: Sequence[AnswerOut],
    ) -> list[int | None]:
        """Offsets of the answers in `results`, once the copies are out too."""
        sent = await hand_over(queue.producer, self._topics.results, claim, answers)
        copied = [await self._send_copy(queue, out) for out in copies]
        await asyncio.gather(sent, *copied, return_exceptions=True)
        try:
            offsets = [
                await self._offset(queue, out, outcome)
                for out, outcome in zip(answers, await sent, strict=True)
            ]
            for out, future in zip(copies, copied, strict=True):
                await self._copied(out, future)
        except Exception as error:
            self._reply_topics.blame([sent], list(zip(copies, copied, strict=True)))
            if isinstance(error, BrokerError):
                raise
            raise ProduceError(f"an answer was not acknowledged: {error!r}") from error
        return offsets

    async def _offset(self, queue: _Queue, out: AnswerOut, outcome: Outcome) -> int | None:
        """Where an answer is in `results`, or what is said instead of one that is refused."""

        async def alone(out: AnswerOut) -> Outcome:
            sent = await hand_over(queue.producer, self._topics.results, out.claim, [out])
            [outcome] = await sent
            return outcome

        if isinstance(outcome, RecordRefused):
            return await self._refused.instead(out, outcome, alone)
        return outcome

    async def _copied(self, out: AnswerOut, sent: asyncio.Future[Acked]) -> None:
        """A copy that the broker refuses costs itself: the transaction goes on without it."""
        try:
            await sent
        except (RecordRefused, TopicError) as error:
            self._counters.replies_lost += 1
            await self._dead_letters.reply(out, error)

    async def _send_copy(self, queue: _Queue, out: AnswerOut) -> asyncio.Future[Acked]:
        """Hand a copy over; a topic that was there a moment ago must not hold up the others."""
        topic = out.reply_to or ""
        try:
            async with asyncio.timeout(_COPY_TIMEOUT_S):
                return await queue.producer.send(topic, out.value, key=out.key, headers=out.headers)
        except (BrokerError, TimeoutError) as error:
            self._reply_topics.refused(topic)
            raise ProduceError(f"a copy was not taken by {topic}: {error!r}") from error

    async def _may_reply(self, out: AnswerOut) -> bool:
        """Whether a copy is wanted and its topic takes it; one that does not must abort nobody."""
        if out.reply_to is None:
            return False
        objection = await self._reply_topics.objection(out.reply_to)
        if objection is None:
            return True
        self._counters.replies_lost += 1
        await self._dead_letters.reply(out, TopicError(objection))
        return False

    def _offsets(self, number: int, commit: Committed) -> dict[TopicPartition, Committed]:
        return {TopicPartition(self._topics.queries, number): commit}


async def _stop(producer: TransactionalProducer) -> None:
    try:
        await producer.stop()
    except BrokerError as error:
        log.debug("while closing: %s", error)
