"""`getmany` that keeps to its timeout."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaConsumer

from anabranch.errors import BrokerError
from anabranch.kafka.client.failures import translate
from anabranch.kafka.transport import Record, TopicPartition

__all__ = ["Batches", "Fetching"]

_LATE_S: Final = 0.1
_MAX_RECORDS: Final = 250
"""Handed out at once, at most: aiokafka takes records out of their batches when it is asked for
them, all that a fetch brought in one go, which may stop the loop for seconds."""

Batches = Mapping[TopicPartition, Sequence[Record]]


class Fetching:
    """One consumer's `getmany`.

    aiokafka ignores the timeout while partitions are being reassigned, and a call cancelled by
    its caller may have taken records with it; so a call that is late or was left is kept, and
    waited for next time.
    """

    def __init__(self, client: AIOKafkaConsumer) -> None:
        self._client = client
        self._pending: asyncio.Task[Any] | None = None
        self._left: set[TopicPartition] = set()
        """Partitions of whose last fetch a part was handed out."""
        self._left_first = False
        self._failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    async def fetch(self, timeout_ms: float) -> Batches:
        """A bounded part of what was fetched so far, or what comes within `timeout_ms`.

        Raises:
            BrokerError: the consumer cannot go on.
        """
        loop = asyncio.get_running_loop()
        give_up = loop.time() + timeout_ms / 1000
        while True:
            left_s = max(give_up - loop.time(), 0.0)
            pending = self._pending = self._pending or self._begin(left_s)
            await asyncio.wait(
                {pending, self._failed},
                timeout=left_s + _LATE_S,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if self._failed.done():
                raise self._failed.result()
            if pending is self._pending:
                break
        if not pending.done():
            return {}
        self._pending = None
        batches = _result(pending)
        self._served(batches)
        return batches

    def fail(self, error: BaseException) -> None:
        """Make this and every later `fetch` raise; the first error is the one that is told."""
        if not self._failed.done():
            self._failed.set_result(error)

    def forget(self) -> None:
        """Positions were set anew: what was fetched before, and not handed out yet, is void."""
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None

    def sought(self, partition: TopicPartition) -> None:
        """The same for the position of one partition."""
        pending = self._pending
        if pending and pending.done() and not pending.cancelled() and not pending.exception():
            pending.result().pop(partition, None)

    def _begin(self, timeout_s: float) -> asyncio.Task[Any]:
        self._put_in_order()
        return asyncio.ensure_future(
            self._client.getmany(timeout_ms=int(timeout_s * 1000), max_records=_MAX_RECORDS)
        )

    def _put_in_order(self) -> None:
        """A backlog holds up nobody: by turns what is left of partitions and what just came."""
        fetched = self._client._fetcher._records
        self._left_first = not self._left_first
        came = [tp for tp in fetched if tp not in self._left]
        for tp in came if self._left_first else reversed(came):
            fetched.move_to_end(tp, last=self._left_first)

    def _served(self, batches: Batches) -> None:
        """What is left of these partitions waits behind what is left of others."""
        fetched = self._client._fetcher._records
        for tp in batches:
            if tp in fetched:
                fetched.move_to_end(tp)
        self._left = {tp for tp in (*self._left, *batches) if tp in fetched}


def _result(pending: asyncio.Task[Any]) -> Batches:
    try:
        batches: Batches = pending.result()
    except asyncio.CancelledError:
        # Not the caller's: aiokafka's own coordination was cancelled.
        raise BrokerError("fetching: the consumer was cancelled") from None
    except BrokerError:
        raise
    except Exception as error:
        raise translate(error, "fetching") from error
    return batches
