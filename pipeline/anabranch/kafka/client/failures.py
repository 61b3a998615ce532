"""aiokafka's errors as ours."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from aiokafka import errors as kafka

from anabranch.errors import (
    BrokerError,
    BrokerUnavailable,
    GenerationLost,
    ProduceError,
    ProducerFenced,
    RecordRefused,
    TopicError,
)
from anabranch.kafka.client.refusals import REFUSALS

__all__ = ["bounded", "produce_error", "translate"]

T = TypeVar("T")

_LOST = (
    kafka.CommitFailedError,
    kafka.IllegalGenerationError,
    kafka.IllegalStateError,  # a commit for partitions that are not assigned
    kafka.UnknownMemberIdError,
)
_UNAVAILABLE = (
    kafka.BrokerNotAvailableError,
    kafka.KafkaTimeoutError,
    kafka.KafkaUnavailableError,
    kafka.RebalanceInProgressError,  # the member is still in the group: later it may commit
    kafka.ReplicaNotAvailableError,
)
"""Trying again may help, beside all that aiokafka itself calls retriable."""
_FENCED = (
    kafka.InvalidProducerEpoch,
    kafka.InvalidProducerIdMapping,
    kafka.InvalidTxnState,
    kafka.ProducerFenced,
)
_TOPIC = (
    kafka.InvalidTopicError,
    kafka.TopicAuthorizationFailedError,
    kafka.UnknownTopicOrPartitionError,
)


def translate(error: BaseException, doing: str) -> BrokerError:
    """Any error of the client library, as one of ours that says what was being done."""
    if isinstance(error, BrokerError):
        return error
    if isinstance(error, kafka.CommitFailedError) and error.__cause__ is not None:
        error = error.__cause__  # which of three errors it was makes a difference
    text = f"{doing}: {_described(error)}"
    if isinstance(error, _TOPIC):
        return TopicError(text)
    if isinstance(error, _FENCED):
        return ProducerFenced(text)
    if isinstance(error, _LOST):
        return GenerationLost(text)
    if isinstance(error, (*_UNAVAILABLE, OSError, TimeoutError)):
        return BrokerUnavailable(text)
    if isinstance(error, kafka.KafkaError) and error.retriable:
        return BrokerUnavailable(text)
    return BrokerError(text)


def produce_error(error: BaseException, topic: str) -> BrokerError:
    """Why a record was not acknowledged."""
    if isinstance(error, REFUSALS):
        return RecordRefused(f"sending to {topic}: {_described(error)}")
    if isinstance(error, (BrokerError, *_TOPIC, *_FENCED)):
        return translate(error, f"sending to {topic}")
    return ProduceError(f"sending to {topic}: {_described(error)}")


async def bounded(work: Awaitable[T], timeout_ms: float, doing: str) -> T:
    """Wait for a request, but not for ever, and translate whatever it raises."""
    try:
        async with asyncio.timeout(timeout_ms / 1000):
            return await work
    except BrokerError:
        raise  # ours already: raised from itself, its causes would have no end
    except Exception as error:
        raise translate(error, doing) from error


def _described(error: BaseException) -> str:
    return str(error) or type(error).__name__
