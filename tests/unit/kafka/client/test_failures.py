"""Every error of the client library is one of ours, and says which kind of trouble it is."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from typing import ClassVar

import pytest
from aiokafka import errors as kafka
from aiokafka.cluster import ClusterMetadata

from anabranch.config.settings import KafkaConfig
from anabranch.errors import (
    BrokerError,
    BrokerUnavailable,
    GenerationLost,
    ProduceError,
    ProducerFenced,
    RecordRefused,
    TopicError,
)
from anabranch.kafka.client.failures import bounded, produce_error, translate
from anabranch.kafka.client.producer import KafkaProducer

LOST = {
    kafka.CommitFailedError,
    kafka.IllegalGenerationError,
    kafka.IllegalStateError,
    kafka.UnknownMemberIdError,
}
TOPIC = {
    kafka.InvalidTopicError,
    kafka.TopicAuthorizationFailedError,
    kafka.UnknownTopicOrPartitionError,
}
AWAY = {
    kafka.BrokerNotAvailableError,
    kafka.GroupCoordinatorNotAvailableError,
    kafka.GroupLoadInProgressError,
    kafka.KafkaConnectionError,
    kafka.KafkaTimeoutError,
    kafka.KafkaUnavailableError,
    kafka.LeaderNotAvailableError,
    kafka.NoBrokersAvailable,
    kafka.NodeNotReadyError,
    kafka.NotCoordinatorForGroupError,
    kafka.NotEnoughReplicasError,
    kafka.NotLeaderForPartitionError,
    kafka.RebalanceInProgressError,
    kafka.RequestTimedOutError,
    kafka.StaleMetadata,
}
"""Those that a broker which is away, or a group that is on the move, is known to cause."""
REFUSED = {
    kafka.AuthenticationFailedError,
    kafka.ClusterAuthorizationFailedError,
    kafka.GroupAuthorizationFailedError,
    kafka.IncompatibleBrokerVersion,
    kafka.OffsetMetadataTooLargeError,
    kafka.UnsupportedVersionError,
}


def every_error() -> Iterator[type[Exception]]:
    """All that can be raised; `BrokerResponseError` is but a base."""
    for _, kind in inspect.getmembers(kafka, inspect.isclass):
        own = issubclass(kind, Exception) and kind.__module__ == kafka.__name__
        if own and kind is not kafka.BrokerResponseError:
            yield kind


def test_every_error_of_aiokafka_is_one_of_ours() -> None:
    kinds = list(every_error())
    assert len(kinds) > 90
    for kind in kinds:
        error = translate(kind(), "doing it")
        assert isinstance(error, BrokerError)
        assert "doing it" in str(error)
        assert kind.__name__ in str(error)
        assert isinstance(produce_error(kind(), "t"), ProduceError | TopicError | ProducerFenced)


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (LOST, GenerationLost),
        (TOPIC, TopicError),
        (AWAY | {OSError, TimeoutError, ConnectionResetError}, BrokerUnavailable),
        (REFUSED | {ValueError}, BrokerError),
    ],
)
def test_the_kind_of_trouble_is_told(
    kinds: set[type[Exception]], expected: type[BrokerError]
) -> None:
    assert {type(translate(kind(), "doing it")) for kind in kinds} == {expected}


def test_whatever_aiokafka_would_try_again_is_no_end() -> None:
    again = {
        kind for kind in every_error() if getattr(kind, "retriable", False) and kind not in TOPIC
    }
    assert len(again) > 15
    assert {type(translate(kind(), "doing it")) for kind in again} == {BrokerUnavailable}


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        (kafka.RebalanceInProgressError(), BrokerUnavailable),
        (kafka.IllegalGenerationError(), GenerationLost),
        (kafka.UnknownMemberIdError(), GenerationLost),
        (None, GenerationLost),
    ],
)
def test_a_failed_commit_is_what_the_broker_said(
    cause: Exception | None, expected: type[BrokerError]
) -> None:
    failed = kafka.CommitFailedError("already rebalanced")
    failed.__cause__ = cause
    assert type(translate(failed, "committing")) is expected


def test_our_own_errors_stay_what_they_are() -> None:
    ours = TopicError("no such topic")
    assert translate(ours, "doing it") is ours
    assert produce_error(ours, "t") is ours


def test_a_record_that_was_refused_names_its_topic() -> None:
    refused = produce_error(kafka.MessageSizeTooLargeError("5 MB"), "orders")
    assert type(refused) is RecordRefused
    assert "orders" in str(refused)
    assert "5 MB" in str(refused)


async def test_a_request_without_an_answer_ends() -> None:
    with pytest.raises(BrokerUnavailable, match="asking: TimeoutError"):
        await bounded(asyncio.Event().wait(), 1, "asking")


async def test_a_request_that_is_cancelled_is_no_error() -> None:
    asking = asyncio.create_task(bounded(asyncio.Event().wait(), 60_000, "asking"))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_an_error_of_ours_passes_as_it_is_and_is_not_its_own_cause() -> None:
    async def refused() -> None:
        raise RecordRefused("too large")

    with pytest.raises(RecordRefused) as raised:
        await bounded(refused(), 1_000, "asking")
    assert raised.value.__cause__ is None

    class Client:
        class client:  # noqa: N801
            cluster = ClusterMetadata()
            _topics: ClassVar[set[str]] = set()

            @staticmethod
            async def _wait_on_metadata(topic: str) -> None:
                raise TopicError("no rights")

    producer = KafkaProducer("p", KafkaConfig(), {})
    producer._client = Client()
    with pytest.raises(TopicError) as raised:
        await producer.send_and_wait("t", b"v")
    assert raised.value.__cause__ is None
