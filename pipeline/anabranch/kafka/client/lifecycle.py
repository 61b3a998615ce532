"""How aiokafka's clients are made, started and closed: bounded, and with nothing left running.

aiokafka's own `stop` waits for its background tasks; with the broker gone, or a rebalance that
does not end, that may take for ever. A consumer whose closing was merely given up would go on
sending heartbeats and keep its partitions, so what does not close in time is taken apart.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka import errors as kafka

from anabranch.config.settings import KafkaConfig
from anabranch.errors import BrokerUnavailable, ConfigError
from anabranch.kafka.client.bootstrap import Bootstrap
from anabranch.kafka.client.failures import translate

__all__ = ["close_consumer", "close_producer", "ended", "made", "started"]

log = logging.getLogger(__name__)

C = TypeVar("C")

LAST_MS: Final = 1_000
"""For closing what has no reason to wait any more."""
_CANCELS: Final = 4
_TASKS: Final = (
    "_coordination_task",
    "_heartbeat_task",
    "_commit_refresh_task",
    "_reset_committed_task",
)


def made(kind: Callable[..., C], **settings: Any) -> C:
    """Make a client.

    Raises:
        ConfigError: aiokafka refuses a setting.
    """
    try:
        return kind(**settings)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"kafka.client: {error}") from error


async def started(
    start: Callable[[], Coroutine[Any, Any, Any]],
    close: Callable[[int], Awaitable[object]],
    config: KafkaConfig,
    timeout_ms: int,
) -> None:
    """Start a client, waiting for a broker that is away; one that does not start is closed.

    Raises:
        BrokerUnavailable: nobody answers; says where, and what to do.
        TopicError: a topic does not exist.
        BrokerError: the broker refuses us.
    """
    bootstrap = Bootstrap(config)
    try:
        async with asyncio.timeout(timeout_ms / 1000):
            await bootstrap.wait(start)
    except BaseException as error:
        await close(LAST_MS)
        if not isinstance(error, Exception):
            raise
        ours = translate(error, "starting")
        if isinstance(ours, BrokerUnavailable):
            ours = bootstrap.nobody_answers(error)
        if ours is error:
            raise
        raise ours from error


async def close_consumer(client: AIOKafkaConsumer, timeout_ms: int) -> None:
    """Leave the group, if there is one, and close. Never raises for the broker's sake."""
    closed = False
    try:
        closed = await ended(client.stop(), timeout_ms)
    finally:
        if not closed:
            await _take_apart(client)


async def close_producer(client: AIOKafkaProducer, timeout_ms: int) -> bool:
    """Deliver what was sent and close; False if that was not to be done in time."""
    closed = False
    try:
        closed = await ended(client.stop(), timeout_ms)
    finally:
        if not closed:
            _fail_all(client)
            if (sender := client._sender.sender_task) is not None:
                # Its own callback fails all again, and then itself where there is no transaction.
                sender.remove_done_callback(client._sender._fail_all)
            await ended(client.client.close(), LAST_MS)
            if sender is not None:
                # Once it leaves its loop and waits for its requests, then it leaves those too.
                for _ in range(_CANCELS):
                    sender.cancel()
                    await asyncio.wait({sender}, timeout=LAST_MS / 1000 / _CANCELS)
                if sender.done() and not sender.cancelled():
                    sender.exception()  # it was told already
    return closed


class _Forgiving(set[Any]):
    """Batches that fail take themselves out, also those that were put back meanwhile."""

    def remove(self, batch: Any) -> None:
        self.discard(batch)


def _fail_all(client: AIOKafkaProducer) -> None:
    """Tell whoever waits for a record that it will not be delivered."""
    accumulator = client._message_accumulator
    waiting = {batch for batches in accumulator._batches.values() for batch in batches}
    accumulator._pending_batches = _Forgiving(accumulator._pending_batches | waiting)
    accumulator.fail_all(kafka.ProducerClosed())
    for batch in list(accumulator._pending_batches):
        for future in (batch._drain_waiter, *(future for future, _ in batch._msg_futures)):
            if future.done() and not future.cancelled():
                future.exception()  # nobody may wait for it any more


async def ended(work: Coroutine[Any, Any, Any], timeout_ms: int) -> bool:
    """Whether `work` came to a good end in time; if not, it is cancelled."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=timeout_ms / 1000)
    finally:
        task.cancel()
    if task.done() and not task.cancelled() and (error := task.exception()) is not None:
        log.debug("while closing: %r", error)
        return False
    return task.done() and not task.cancelled()


async def _take_apart(client: AIOKafkaConsumer) -> None:
    """What `stop` would have done, without waiting for anybody."""
    for name in _TASKS:
        if (task := getattr(client._coordinator, name, None)) is not None:
            task.cancel()
    if client._fetcher is not None:
        await ended(client._fetcher.close(), LAST_MS)
    await ended(client._client.close(), LAST_MS)
