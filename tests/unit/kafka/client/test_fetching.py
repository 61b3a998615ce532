"""`getmany` keeps to its timeout, loses nothing, and hands out nothing stale."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import errors as kafka

from anabranch.config.settings import KafkaConfig
from anabranch.errors import BrokerError, BrokerUnavailable, GenerationLost
from anabranch.kafka.client import KafkaTransport
from anabranch.kafka.client.consumer import _Listener
from anabranch.kafka.client.fetching import Fetching
from anabranch.kafka.transport import Committed, TopicPartition
from anabranch.testing.virtual_time import run

AT = TopicPartition("t", 0)


class Client:
    """An aiokafka consumer whose calls to `getmany` the test ends."""

    def __init__(self) -> None:
        self.calls: list[asyncio.Future[Any]] = []
        self.timeouts: list[int] = []
        self.called = asyncio.Event()
        self._fetcher = SimpleNamespace(_records=OrderedDict[TopicPartition, str]())

    async def getmany(self, *, timeout_ms: int, max_records: int) -> Any:
        assert max_records <= 250, "taken out of its batches in one turn of the loop"
        self.timeouts.append(timeout_ms)
        self.calls.append(asyncio.get_running_loop().create_future())
        self.called.set()
        return await self.calls[-1]


Scenario = Callable[[Client, Fetching], Coroutine[Any, Any, None]]


def play(scenario: Scenario) -> None:
    async def main() -> None:
        client: Any = Client()
        await scenario(client, Fetching(client))

    run(main())


def test_a_call_that_is_late_is_waited_for_next_time() -> None:
    async def scenario(client: Client, fetching: Fetching) -> None:
        assert await fetching.fetch(500) == {}
        assert asyncio.get_running_loop().time() == pytest.approx(0.5, abs=0.2)
        client.calls[0].set_result({AT: ["record"]})
        assert await fetching.fetch(500) == {AT: ["record"]}
        assert client.timeouts == [500]

    play(scenario)


def test_a_backlog_and_what_just_came_are_handed_out_by_turns() -> None:
    """The first partition in the client's own order is the one that is handed out next."""

    async def scenario(client: Client, fetching: Fetching) -> None:
        fetched = client._fetcher._records
        fetched.update({TopicPartition("t", n): "much" for n in range(3)})
        served = []
        for turn in range(30):
            if turn % 3 == 0:
                fetched[TopicPartition("t", 100 + turn)] = "little"
            reading = asyncio.create_task(fetching.fetch(500))
            while len(client.calls) <= turn:  # noqa: ASYNC110
                await asyncio.sleep(0)
            first = next(iter(fetched))
            if fetched[first] == "little":
                del fetched[first]
            client.calls[-1].set_result({first: ["record"]})
            await reading
            served.append(first.partition)
        left = [number for number in served if number < 100]
        assert set(left[-6:-3]) == set(left[-3:]) == {0, 1, 2}, "one after another"
        waited = [served.index(number) - (number - 100) for number in served[15:] if number >= 100]
        assert max(waited) <= 1, "what just came does not wait for a backlog"

    play(scenario)


def test_a_call_whose_caller_was_cancelled_is_waited_for_next_time() -> None:
    async def scenario(client: Client, fetching: Fetching) -> None:
        left = asyncio.create_task(fetching.fetch(500))
        await client.called.wait()
        client.calls[0].set_result({AT: ["record"]})
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left
        assert await fetching.fetch(500) == {AT: ["record"]}

    play(scenario)


def test_what_was_fetched_and_forgotten_is_not_handed_out() -> None:
    async def scenario(client: Client, fetching: Fetching) -> None:
        assert await fetching.fetch(500) == {}
        client.calls[0].set_result({AT: ["old"]})
        fetching.forget()
        again = asyncio.create_task(fetching.fetch(500))
        client.called.clear()
        await client.called.wait()
        client.calls[1].set_result({AT: ["new"]})
        assert await again == {AT: ["new"]}

    play(scenario)


def test_what_was_fetched_before_a_seek_is_not_handed_out_after_it() -> None:
    """Else whoever reads again from there takes what lies between for a gap."""
    other = TopicPartition("t", 1)

    async def scenario(client: Client, fetching: Fetching) -> None:
        assert await fetching.fetch(500) == {}
        fetching.sought(AT)  # nothing has come yet
        client.calls[0].set_result({AT: ["old"], other: ["record"]})
        await asyncio.sleep(0.1)
        fetching.sought(AT)
        assert await fetching.fetch(500) == {other: ["record"]}

    play(scenario)


def test_a_waiting_fetch_that_is_made_to_forget_asks_again_for_the_time_that_is_left() -> None:
    async def scenario(client: Client, fetching: Fetching) -> None:
        waiting = asyncio.create_task(fetching.fetch(500))
        await asyncio.sleep(0.2)
        client.called.clear()
        fetching.forget()
        await client.called.wait()
        assert client.timeouts == [500, 300]
        client.calls[1].set_result({AT: ["new"]})
        assert await waiting == {AT: ["new"]}

    play(scenario)


def test_a_failure_wakes_the_waiting_call_and_stays() -> None:
    async def scenario(client: Client, fetching: Fetching) -> None:
        waiting = asyncio.create_task(fetching.fetch(60_000))
        await client.called.wait()
        fetching.fail(RuntimeError("first"))
        fetching.fail(RuntimeError("second"))
        for fetch in (waiting, fetching.fetch(500)):
            with pytest.raises(RuntimeError, match="first"):
                await fetch
        assert asyncio.get_running_loop().time() < 1

    play(scenario)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (kafka.KafkaConnectionError("gone"), BrokerUnavailable),
        (kafka.ConsumerStoppedError(), BrokerError),
        (AssertionError(), BrokerError),
    ],
)
def test_what_getmany_raises_is_one_of_our_errors(
    error: Exception, expected: type[BrokerError]
) -> None:
    async def scenario(client: Client, fetching: Fetching) -> None:
        waiting = asyncio.create_task(fetching.fetch(500))
        await client.called.wait()
        client.calls[0].set_exception(error)
        with pytest.raises(expected, match="fetching"):
            await waiting

    play(scenario)


def test_a_consumer_that_was_cancelled_inside_is_an_error_and_no_cancellation() -> None:
    async def scenario(client: Client, fetching: Fetching) -> None:
        waiting = asyncio.create_task(fetching.fetch(500))
        await client.called.wait()
        client.calls[0].cancel()
        with pytest.raises(BrokerError, match="cancelled"):
            await waiting

    play(scenario)


def test_a_callback_that_was_cancelled_inside_is_an_error_too() -> None:
    class Listener:
        async def revoked(self, partitions: Any) -> None:
            raise asyncio.CancelledError

        async def assigned(self, partitions: Any) -> None: ...

    async def scenario(client: Any, fetching: Fetching) -> None:
        with pytest.raises(asyncio.CancelledError):
            await _Listener(client, Listener(), fetching).on_partitions_revoked([])
        with pytest.raises(BrokerError, match="callback"):
            await fetching.fetch(500)

    play(scenario)


async def test_clients_that_are_not_started_say_so() -> None:
    transport: Any = KafkaTransport(KafkaConfig())
    consumer = transport.consumer("c", "g", ["t"], None)
    reader, producer, admin = transport.reader("r"), transport.producer("p"), transport.admin()
    for call in (
        consumer.fetch(0),
        consumer.commit({AT: Committed(0, "")}),
        consumer.committed([AT]),
        reader.fetch(0),
        reader.ends([AT]),
        reader.partitions("t"),
        producer.send("t", b"x"),
        producer.partitions("t"),
        admin.topics(["t"]),
        admin.create({}, 1),
    ):
        with pytest.raises(BrokerError, match="not started") as refused:
            await call
        assert not isinstance(refused.value, GenerationLost)
    for client in (consumer, reader, producer, admin):
        await client.stop()
