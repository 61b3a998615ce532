"""A record that the broker refuses, and what the client library makes of it.

Read in aiokafka 0.14, and tried: a batch takes its sequence numbers when it is drained; one that is
refused for good (too large, a timestamp out of bounds) fails all its records, is not split, and its
numbers are not given back: every later batch of that partition then fails with
OutOfOrderSequenceNumber, for good. The broker has appended nothing, so the next batch has to begin
where this one began. The Java client does the same
(`TransactionManager.adjustSequencesDueToFailedBatch`). One batch of a partition is under way at a
time, and the next is drained only after this one has failed: nothing has to be renumbered.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka import errors as kafka
from aiokafka.producer.message_accumulator import MessageBatch

from anabranch.errors import ProduceError, RecordRefused, TopicError

__all__ = ["REFUSALS", "BatchRefusedError", "watch_refusals"]


class InvalidRecordError(kafka.BrokerResponseError):  # type: ignore[misc]
    """The broker has looked at a record and does not like it; aiokafka knows no such error."""

    errno = 87
    message = "INVALID_RECORD"
    description = "The broker refuses a record, say one without a key for a compacted topic"


kafka.kafka_errors[InvalidRecordError.errno] = InvalidRecordError  # by which aiokafka looks it up

REFUSALS: Final = (
    InvalidRecordError,
    kafka.InvalidTimestampError,
    kafka.MessageSizeTooLargeError,
    kafka.PolicyViolationError,
    kafka.RecordListTooLargeError,
    kafka.UnsupportedForMessageFormatError,
)
_LEAST_BATCH_BYTES: Final = 1_024


class BatchRefusedError(ProduceError):
    """The broker does not take a batch: any of its records may be the reason."""


def watch_refusals(client: AIOKafkaProducer) -> None:
    """Have a producer survive refusals: what is refused fails, what follows it does not."""
    sender = client._sender
    send = sender._send_produce_req

    async def watched(node_id: int, batches: Mapping[Any, MessageBatch]) -> None:
        for batch in batches.values():
            batch.failure = partial(_fail, client, batch)
        await send(node_id, batches)

    sender._send_produce_req = watched


def _fail(client: AIOKafkaProducer, batch: MessageBatch, exception: BaseException) -> None:
    if isinstance(exception, REFUSALS):
        _give_back(client, batch)
        if batch.record_count > 1 and isinstance(exception, kafka.MessageSizeTooLargeError):
            _shrink(client, len(batch.get_data_buffer()) // 2)
        kind = RecordRefused if batch.record_count == 1 else BatchRefusedError
        text = f"sending to {batch.tp.topic}: {str(exception) or type(exception).__name__}"
        exception = kind(text)
    elif isinstance(exception, kafka.TopicAuthorizationFailedError):
        _give_back(client, batch)
        exception = TopicError(f"sending to {batch.tp.topic}: {exception}")
    MessageBatch.failure(batch, exception)


def _give_back(client: AIOKafkaProducer, batch: MessageBatch) -> None:
    """Sequence numbers of a batch that the broker has not appended."""
    if client._txn_manager is not None:
        client._txn_manager.increment_sequence_number(batch.tp, -batch.record_count)


def _shrink(client: AIOKafkaProducer, most_bytes: int) -> None:
    """Some topic takes smaller batches; for good, as the refusal does not say how small."""
    accumulator = client._message_accumulator
    accumulator._batch_size = max(_LEAST_BATCH_BYTES, min(accumulator._batch_size, most_bytes))
