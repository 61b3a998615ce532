"""aiokafka's errors as ours."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Protocol, TypeVar

from aiokafka import errors as kafka

from anabranch.errors import (
    BrokerError,
    BrokerUnavailable,
    GenerationLost,
    ProduceError,
    TopicError,
)

__all__ = ["bounded", "produce_error", "started", "translate", "unavailable"]

T = TypeVar("T")


class Startable(Protocol):
    """What all of aiokafka's clients can do (its admin client by other names)."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...


_LOST = (
    kafka.CommitFailedError,
    kafka.IllegalGenerationError,
    kafka.RebalanceInProgressError,
    kafka.UnknownMemberIdError,
)
_UNAVAILABLE = (
    kafka.BrokerNotAvailableError,
    kafka.KafkaConnectionError,
    kafka.KafkaTimeoutError,
    kafka.NodeNotReadyError,
    kafka.RequestTimedOutError,
    kafka.StaleMetadata,
)
_TOPIC = (
    kafka.InvalidTopicError,
    kafka.TopicAuthorizationFailedError,
    kafka.UnknownTopicOrPartitionError,
)


def translate(error: Exception, doing: str) -> BrokerError:
    """Any error of the client library, as one of ours that says what was being done."""
    text = f"{doing}: {error or type(error).__name__}"
    if isinstance(error, BrokerError):
        return error
    if isinstance(error, _LOST):
        return GenerationLost(text)
    if isinstance(error, _TOPIC):
        return TopicError(text)
    if isinstance(error, (*_UNAVAILABLE, OSError, TimeoutError)):
        return BrokerUnavailable(text)
    return BrokerError(text)


def produce_error(error: Exception, topic: str) -> BrokerError:
    """Why a record was not acknowledged."""
    if isinstance(error, _TOPIC):
        return translate(error, f"sending to {topic}")
    return ProduceError(f"sending to {topic}: {error or type(error).__name__}")


def unavailable(bootstrap: str, error: Exception) -> BrokerUnavailable:
    """Nobody answers: where, and what to do."""
    return BrokerUnavailable(
        f"no Kafka broker answers at {bootstrap} ({error or type(error).__name__}); start one "
        f"(`anabranch broker`) or set kafka.bootstrap"
    )


async def started(client: Startable, bootstrap: str) -> None:
    """Start a client; one that does not start, for whatever reason, is closed.

    Raises:
        BrokerUnavailable: nobody answers.
    """
    try:
        await client.start()
    except BaseException as error:
        await client.stop()
        if isinstance(error, kafka.KafkaError | OSError):
            raise unavailable(bootstrap, error) from error
        raise


async def bounded(work: Awaitable[T], timeout_ms: int, doing: str) -> T:
    """Wait for a request, but not for ever, and translate what it raises."""
    try:
        async with asyncio.timeout(timeout_ms / 1000):
            return await work
    except (kafka.KafkaError, OSError, TimeoutError) as error:
        raise translate(error, doing) from error
