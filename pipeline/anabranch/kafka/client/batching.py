"""Records of one partition, handed to aiokafka many at once, with one future for all of them.

Read in aiokafka 0.14: the batch that waits for a partition's turn takes records from everybody, and
tells each of its futures the offset of its own record once the broker has appended all of them, in
their order, one after the other. So of records that went into one batch together only the first
needs a future: the offsets of the others follow.

A batch that the broker refuses is sent again by halves, each in a batch that is shared with nobody,
until what is refused stands alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeVar

from aiokafka import AIOKafkaProducer
from aiokafka import TopicPartition as KafkaTopicPartition
from aiokafka.errors import IllegalOperation, KafkaTimeoutError, MessageSizeTooLargeError
from aiokafka.producer.message_accumulator import MessageBatch

from anabranch.errors import RecordRefused
from anabranch.kafka.client.failures import produce_error
from anabranch.kafka.client.refusals import BatchRefusedError
from anabranch.kafka.transport import Acked, Outcome, ProducerRecord

__all__ = ["Batching"]

T = TypeVar("T")


class Batching:
    """`send_batch` of one client.

    Args:
        timeout_s: how long may be waited for room.
    """

    def __init__(self, client: AIOKafkaProducer, timeout_s: float) -> None:
        self._client = client
        self._accumulator = client._message_accumulator
        self._timeout_s = timeout_s
        self._new_future = asyncio.get_running_loop().create_future
        self._open: set[asyncio.Future[Any]] = set()
        self._resending: set[asyncio.Task[None]] = set()

    async def send(
        self, at: KafkaTopicPartition, records: Sequence[ProducerRecord]
    ) -> asyncio.Future[Sequence[Outcome]]:
        """Hand records over; waits only for room.

        Raises:
            KafkaError: there is no room, the client was closed, or is in no transaction.
        """
        return await self._hand_over(_Delivery(at, records, self._new_future()))

    async def send_one(
        self, at: KafkaTopicPartition, record: ProducerRecord
    ) -> asyncio.Future[Acked]:
        """The same with one, whose refusal is the future's error."""
        return await self._hand_over(_SingleDelivery(at, [record], self._new_future()))

    async def _hand_over(self, delivery: _Delivery[T]) -> asyncio.Future[T]:
        manager = self._client._txn_manager
        if manager.transactional_id is not None and not manager.is_in_transaction():
            raise IllegalOperation("not in a transaction")
        self._open.add(delivery.done)
        delivery.done.add_done_callback(self._open.discard)
        await self._append(delivery, 0, len(delivery.records))
        return delivery.done

    async def settled(self, timeout_s: float) -> None:
        """Wait, at most so long, until of everything that was sent it is known what became of it.

        What is not known then will fail, and may be of interest to nobody.
        """
        if self._open:
            await asyncio.wait(self._open, timeout=timeout_s)
        for sent in self._open:
            sent.add_done_callback(lambda sent: sent.cancelled() or sent.exception())

    async def _append(
        self, delivery: _Delivery[Any], first: int, end: int, *, apart: bool = False
    ) -> None:
        """Put records into batches: those that wait, or others that are shared with nobody."""
        give_up_s = time.monotonic() + self._timeout_s
        while first < end:
            waiting = self._accumulator._batches.get(delivery.at)
            if waiting and not apart:
                count = self._fill(waiting[-1], delivery, first, end)
            elif waiting:
                count = 0
            elif (
                refusal := self._too_large(delivery.at.topic, delivery.records[first])
            ) is not None:
                delivery.refused(first, refusal)
                count = 1
            else:
                batch = self._accumulator._append_batch(
                    self._accumulator.create_builder(), delivery.at
                )
                count = self._fill(batch, delivery, first, end)
                if apart:
                    batch._builder.close()
            if not count:
                await self._room(waiting[-1], give_up_s - time.monotonic())
            first += count

    def _fill(self, batch: MessageBatch, delivery: _Delivery[Any], first: int, end: int) -> int:
        """How many records it had room for."""
        append = batch._builder.append
        leading: Any = None
        count = 0
        for value, key, headers in delivery.records[first:end]:
            appended = append(timestamp=None, key=key, value=value, headers=list(headers))
            if appended is None:
                break
            leading = leading or appended
            count += 1
        if count:
            batch._msg_futures.append((_Slice(delivery, first, count, self._refused), leading))
        return count

    async def _room(self, full: MessageBatch, timeout_s: float) -> None:
        """Wait until a batch is on its way."""
        if timeout_s <= 0:
            raise KafkaTimeoutError
        if not self._accumulator._waiter_future.done():
            self._accumulator._waiter_future.set_result(None)
        await full.wait_drain(timeout_s)

    def _too_large(self, topic: str, record: ProducerRecord) -> RecordRefused | None:
        """Only what stands first in its batch may be larger than a batch."""
        try:
            self._client._serialize(record.key, record.value, list(record.headers))
        except MessageSizeTooLargeError as error:
            return RecordRefused(f"sending to {topic}: {error}")
        return None

    def _refused(self, delivery: _Delivery[Any], first: int, count: int) -> None:
        again = asyncio.ensure_future(self._send_halves(delivery, first, count))
        self._resending.add(again)
        again.add_done_callback(self._resending.discard)

    async def _send_halves(self, delivery: _Delivery[Any], first: int, count: int) -> None:
        middle, end = first + count // 2, first + count
        try:
            await self._append(delivery, first, middle, apart=True)
            await self._append(delivery, middle, end, apart=True)
        except Exception as error:
            delivery.failed(error)


class _Delivery(Generic[T]):
    """What became of the records of one call.

    Attributes:
        done: its result says it once all of it is known.
    """

    def __init__(
        self, at: KafkaTopicPartition, records: Sequence[ProducerRecord], done: asyncio.Future[T]
    ) -> None:
        self.at: Final = at
        self.records: Final = records
        self.done: Final = done
        self._outcomes: list[Outcome] = []
        self._unknown = len(records)
        if not records:
            self._tell(())

    def appended(self, first: int, count: int, offset: int) -> None:
        offsets = range(offset, offset + count)
        if count == len(self.records):
            self._tell(offsets)
        else:
            self._put(first, offsets)

    def refused(self, n: int, error: RecordRefused) -> None:
        self._put(n, [error])

    def failed(self, error: BaseException) -> None:
        if not self.done.done():
            self.done.set_exception(produce_error(error, self.at.topic))

    def _put(self, first: int, outcomes: Sequence[Outcome]) -> None:
        self._outcomes = self._outcomes or [0] * len(self.records)
        self._outcomes[first : first + len(outcomes)] = outcomes
        self._unknown -= len(outcomes)
        if not self._unknown:
            self._tell(self._outcomes)

    def _tell(self, outcomes: Sequence[Outcome]) -> None:
        if not self.done.done():
            self._settle(outcomes)

    def _settle(self, outcomes: Any) -> None:
        self.done.set_result(outcomes)


class _Slice:
    """Records of a delivery that share a batch, where aiokafka's batch keeps a future for each.

    Args:
        refused: called with the rest if the batch is refused, and others are in it.
    """

    __slots__ = ("_count", "_delivery", "_first", "_refused", "_settled")

    def __init__(
        self,
        delivery: _Delivery[Any],
        first: int,
        count: int,
        refused: Callable[[_Delivery[Any], int, int], None],
    ) -> None:
        self._delivery = delivery
        self._first = first
        self._count = count
        self._refused = refused
        self._settled = False

    def done(self) -> bool:
        return self._settled

    def cancelled(self) -> bool:
        return False

    def exception(self) -> None:
        """Nothing to be told of: it is the delivery's future that fails."""

    def set_result(self, leading: Any) -> None:
        self._settled = True
        self._delivery.appended(self._first, self._count, leading.offset)

    def set_exception(self, error: BaseException) -> None:
        self._settled = True
        if isinstance(error, RecordRefused):
            self._delivery.refused(self._first, error)
        elif isinstance(error, BatchRefusedError):
            self._refused(self._delivery, self._first, self._count)
        else:
            self._delivery.failed(error)


class _SingleDelivery(_Delivery[Acked]):
    """Of one record."""

    def _settle(self, outcomes: Sequence[Outcome]) -> None:
        [outcome] = outcomes
        if isinstance(outcome, RecordRefused):
            self.done.set_exception(outcome)
        else:
            self.done.set_result(Acked(self.at.partition, outcome))
