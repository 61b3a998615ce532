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
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka import TopicPartition as KafkaTopicPartition
from aiokafka.errors import IllegalOperation, KafkaTimeoutError, MessageSizeTooLargeError
from aiokafka.producer.message_accumulator import MessageBatch

from anabranch.errors import RecordRefused
from anabranch.kafka.client.failures import produce_error
from anabranch.kafka.transport import Outcome, ProducerRecord

__all__ = ["Batching"]


class Batching:
    """`send_batch` of one client.

    Args:
        timeout_s: how long may be waited for room.
    """

    def __init__(self, client: AIOKafkaProducer, timeout_s: float) -> None:
        self._client = client
        self._accumulator = client._message_accumulator
        self._timeout_s = timeout_s
        self._open: set[asyncio.Future[Sequence[Outcome]]] = set()
        self._resending: set[asyncio.Task[None]] = set()

    async def send(
        self, at: KafkaTopicPartition, records: Sequence[ProducerRecord]
    ) -> asyncio.Future[Sequence[Outcome]]:
        """Hand records over; waits only for room.

        Raises:
            KafkaError: there is no room, the client was closed, or is in no transaction.
        """
        manager = self._client._txn_manager
        if manager.transactional_id is not None and not manager.is_in_transaction():
            raise IllegalOperation("not in a transaction")
        delivery = _Delivery(at, records)
        self._open.add(delivery.done)
        delivery.done.add_done_callback(self._open.discard)
        await self._append(delivery, 0, len(records))
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
        self, delivery: _Delivery, first: int, end: int, *, apart: bool = False
    ) -> None:
        """Put records into batches: those that wait, or others that are shared with nobody."""
        give_up_s = time.monotonic() + self._timeout_s
        while first < end:
            waiting = self._accumulator._batches.get(delivery.at)
            if waiting and not apart:
                count = self._fill(waiting[-1], delivery, first, end)
            elif waiting:
                count = 0
            elif (refusal := self._too_large(delivery.records[first])) is not None:
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

    def _fill(self, batch: MessageBatch, delivery: _Delivery, first: int, end: int) -> int:
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
            sent: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            sent.add_done_callback(partial(self._sent, delivery, first, count))
            batch._msg_futures.append((sent, leading))
        return count

    async def _room(self, full: MessageBatch, timeout_s: float) -> None:
        """Wait until a batch is on its way."""
        if timeout_s <= 0:
            raise KafkaTimeoutError
        if not self._accumulator._waiter_future.done():
            self._accumulator._waiter_future.set_result(None)
        await full.wait_drain(timeout_s)

    def _too_large(self, record: ProducerRecord) -> RecordRefused | None:
        """Only what stands first in its batch may be larger than a batch."""
        try:
            self._client._serialize(record.key, record.value, list(record.headers))
        except MessageSizeTooLargeError as error:
            return RecordRefused(str(error))
        return None

    def _sent(self, delivery: _Delivery, first: int, count: int, sent: asyncio.Future[Any]) -> None:
        error = sent.exception()
        if error is None:
            delivery.appended(first, count, sent.result().offset)
        elif not isinstance(error, RecordRefused):
            delivery.failed(error)
        elif error.alone:
            delivery.refused(first, error)
        else:
            again = asyncio.ensure_future(self._send_halves(delivery, first, count))
            self._resending.add(again)
            again.add_done_callback(self._resending.discard)

    async def _send_halves(self, delivery: _Delivery, first: int, count: int) -> None:
        middle, end = first + count // 2, first + count
        try:
            await self._append(delivery, first, middle, apart=True)
            await self._append(delivery, middle, end, apart=True)
        except Exception as error:
            delivery.failed(error)


class _Delivery:
    """What became of the records of one call.

    Attributes:
        done: its result says it once all of it is known.
    """

    def __init__(self, at: KafkaTopicPartition, records: Sequence[ProducerRecord]) -> None:
        self.at: Final = at
        self.records: Final = records
        self.done: Final[asyncio.Future[Sequence[Outcome]]] = (
            asyncio.get_running_loop().create_future()
        )
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
            self.done.set_result(outcomes)
