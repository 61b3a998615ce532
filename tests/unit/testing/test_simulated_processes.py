"""Simulated processes: what is killed does nothing more, what is frozen does it later."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import pytest

from anabranch.testing import MemoryBroker, MemoryTransport, run
from anabranch.testing.processes import Processes, ProcessLoop

Ended = list[tuple[str, BaseException | None]]


def play(scenario: Coroutine[Any, Any, None]) -> None:
    run(scenario, ProcessLoop)


def values(broker: MemoryBroker) -> list[bytes | None]:
    return [record.value for record in broker.records("t")]


async def count_seconds(transport: MemoryTransport, stop: asyncio.Event) -> None:
    """Sends the time, every second, and once more when told to stop."""
    producer, loop = transport.producer("p"), asyncio.get_running_loop()
    while not stop.is_set():
        await producer.send("t", b"%d" % int(loop.time()), partition=0)
        await asyncio.sleep(1)
    await producer.send_and_wait("t", b"stopped", partition=0)


def test_a_process_that_is_told_to_stop_ends_by_itself() -> None:
    async def scenario() -> None:
        broker, ended = MemoryBroker(), Ended()
        processes = Processes(broker, lambda name, error: ended.append((name, error)))
        processes.start("one", count_seconds)
        await asyncio.sleep(1.5)
        processes.stop("one")
        await asyncio.sleep(2)
        assert values(broker) == [b"0", b"1", b"stopped"]
        assert ended == [("one", None)]
        assert processes.running == ()

    play(scenario())


def test_the_error_that_ends_a_process_is_told() -> None:
    async def scenario() -> None:
        ended = Ended()
        processes = Processes(MemoryBroker(), lambda name, error: ended.append((name, error)))

        async def fail(transport: MemoryTransport, stop: asyncio.Event) -> None:
            raise RuntimeError("inside")

        processes.start("one", fail)
        await asyncio.sleep(1)
        assert [(name, str(error)) for name, error in ended] == [("one", "inside")]

    play(scenario())


def test_a_killed_process_leaves_no_task_and_reaches_nobody_on_its_way_out() -> None:
    async def scenario() -> None:
        broker, ended = MemoryBroker(), Ended()
        processes = Processes(broker, lambda name, error: ended.append((name, error)))

        async def clinging(transport: MemoryTransport, stop: asyncio.Event) -> None:
            producer = transport.producer("p")
            child = asyncio.create_task(asyncio.sleep(1000))
            try:
                await asyncio.sleep(1000)
            finally:
                with suppress(asyncio.CancelledError):
                    await child
                await producer.send("t", b"from the grave")

        before = asyncio.all_tasks()
        processes.start("one", clinging)
        await asyncio.sleep(1)
        await processes.kill("one")
        await asyncio.sleep(1)
        assert asyncio.all_tasks() == before
        assert values(broker) == []
        assert ended == []

    play(scenario())


def test_a_task_that_outlives_its_process_is_told() -> None:
    async def scenario() -> None:
        processes = Processes(MemoryBroker(), lambda name, error: None)
        forgotten: list[asyncio.Task[None]] = []

        async def forgetful(transport: MemoryTransport, stop: asyncio.Event) -> None:
            forgotten.append(asyncio.create_task(asyncio.sleep(100), name="forgotten"))

        processes.start("one", forgetful)
        processes.start("two", count_seconds)
        processes.stop("two")
        await asyncio.sleep(5)
        assert processes.leaked == ["one: forgotten"]

    play(scenario())


def test_a_process_that_crashes_is_dead_at_once_and_told_as_failed() -> None:
    async def scenario() -> None:
        broker, ended = MemoryBroker(), Ended()
        processes = Processes(broker, lambda name, error: ended.append((name, error)))

        async def unlucky(transport: MemoryTransport, stop: asyncio.Event) -> None:
            child = asyncio.create_task(count_seconds(transport, stop))
            await asyncio.sleep(1.5)
            try:
                processes.crash()
            finally:
                await child

        before = asyncio.all_tasks()
        processes.start("one", unlucky)
        processes.start("two", count_seconds)
        await asyncio.sleep(2.5)
        assert [(name, str(error)) for name, error in ended] == [("one", "crashed")]
        assert processes.running == ("two",)
        await processes.kill("two")
        assert asyncio.all_tasks() == before
        assert values(broker) == [b"0", b"0", b"1", b"1", b"2"]

    play(scenario())


def test_others_live_on_when_one_is_killed() -> None:
    async def scenario() -> None:
        broker = MemoryBroker()
        processes = Processes(broker, lambda name, error: None)
        processes.start("one", count_seconds)
        processes.start("two", count_seconds)
        await asyncio.sleep(0.5)
        await processes.kill("one")
        await asyncio.sleep(2)
        assert processes.running == ("two",)
        assert values(broker) == [b"0", b"0", b"1", b"2"]

    play(scenario())


def test_a_frozen_process_does_nothing_and_then_goes_on_late() -> None:
    async def scenario() -> None:
        broker = MemoryBroker()
        processes = Processes(broker, lambda name, error: None)
        processes.start("one", count_seconds)
        await asyncio.sleep(1.5)
        processes.freeze("one", 10)
        await asyncio.sleep(9)
        assert values(broker) == [b"0", b"1"]
        await asyncio.sleep(2.5)
        assert values(broker) == [b"0", b"1", b"11", b"12"]

    play(scenario())


def test_what_was_sent_before_a_freeze_arrives_during_it() -> None:
    async def scenario() -> None:
        broker = MemoryBroker()
        processes = Processes(broker, lambda name, error: None)
        processes.start("one", count_seconds)
        await asyncio.sleep(0.0002)
        assert values(broker) == []
        processes.freeze("one", 10)
        await asyncio.sleep(1)
        assert values(broker) == [b"0"]

    play(scenario())


def test_a_timeout_that_a_frozen_process_escaped_in_time_does_not_strike_after_it() -> None:
    """Both the event and the timeout come during the freeze; the event came first."""

    async def scenario() -> None:
        seen: list[str] = []
        event = asyncio.Event()

        async def wait(transport: MemoryTransport, stop: asyncio.Event) -> None:
            async with asyncio.timeout(3):
                await event.wait()
            seen.append("in time")

        processes = Processes(MemoryBroker(), lambda name, error: None)
        processes.start("one", wait)
        await asyncio.sleep(1)
        processes.freeze("one", 10)
        event.set()
        await asyncio.sleep(11)
        assert seen == ["in time"]

    play(scenario())


def test_a_frozen_process_can_be_killed() -> None:
    async def scenario() -> None:
        broker = MemoryBroker()
        processes = Processes(broker, lambda name, error: None)
        processes.start("one", count_seconds)
        await asyncio.sleep(0.5)
        processes.freeze("one", 10)
        await asyncio.sleep(1)
        await processes.kill("one")
        await asyncio.sleep(20)
        assert values(broker) == [b"0"]

    play(scenario())


def test_a_process_that_swallows_every_cancellation_is_an_error() -> None:
    async def scenario() -> None:
        enough = asyncio.Event()

        async def immortal(transport: MemoryTransport, stop: asyncio.Event) -> None:
            while not enough.is_set():
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(1)

        processes = Processes(MemoryBroker(), lambda name, error: None)
        processes.start("one", immortal)
        await asyncio.sleep(1)
        with pytest.raises(RuntimeError, match="outlives its kill"):
            await processes.kill("one")
        enough.set()
        await asyncio.sleep(1)

    play(scenario())
