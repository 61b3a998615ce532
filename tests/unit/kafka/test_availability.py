"""A broker that is away is said once, comes back once, and is given up in the documented time."""

from __future__ import annotations

import asyncio
import logging
import socket

import pytest

from anabranch.cli import runtime
from anabranch.cli.common import Common
from anabranch.client import Client
from anabranch.config.settings import Config, KafkaConfig
from anabranch.errors import BrokerUnavailable, StageFailed
from anabranch.kafka.availability import absence, answered, refusal
from anabranch.kafka.client.quiet import EVERY_S, Seldom, quiet
from anabranch.layers.api import Item, LayerSpec, Request, layer
from anabranch.runtime.clock import SystemClock
from anabranch.testing import run
from anabranch.testing.memory import MemoryBroker
from anabranch.testing.virtual_time import VirtualClock
from anabranch.worker import Worker


@layer("a")
async def nothing(request: Request) -> list[Item]:
    return []


def away(caplog: pytest.LogCaptureFixture, name: str, seconds: float, wait_s: float) -> None:
    """A worker is cut off, and `wait_s` later all is over."""

    async def scenario() -> None:
        broker = MemoryBroker()
        config = Config(kafka=KafkaConfig(bootstrap=name))
        specs = [LayerSpec(nothing)]
        clock, transport = VirtualClock(), broker.transport("w")
        async with Worker(config, layers=specs, transport=transport, clock=clock) as worker:
            await worker.ready()
            await asyncio.sleep(10)
            broker.cut("w", seconds)
            await asyncio.sleep(wait_s)

    with caplog.at_level(logging.WARNING, "anabranch.kafka.availability"):
        run(scenario())


def test_it_is_said_once_when_it_goes_and_once_when_it_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    away(caplog, "b:1", seconds=5, wait_s=10)
    said = [r.getMessage() for r in caplog.records if r.name == "anabranch.kafka.availability"]
    assert len(said) == 2
    assert said[0].startswith("no Kafka broker answers at b:1 (it has fallen silent); waiting")
    assert said[1].startswith("the broker at b:1 is back after ")


def test_what_is_short_is_not_worth_a_word(caplog: pytest.LogCaptureFixture) -> None:
    away(caplog, "b:2", seconds=1, wait_s=5)
    assert not [r for r in caplog.records if r.name == "anabranch.kafka.availability"]


def test_it_is_given_up_in_the_documented_time_with_the_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    message = r"b:3 has not answered for 45 s \(kafka.request_timeout_ms\)"
    with pytest.raises(StageFailed, match=message):
        away(caplog, "b:3", seconds=1_000, wait_s=60)


def test_a_suspended_process_has_heard_nothing_and_gives_nothing_up() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        asked = loop.create_future()

        async def request() -> str:
            return str(await asked)

        async def stand_still() -> None:
            loop._virtual.now += 1_000  # type: ignore[attr-defined]
            await asyncio.sleep(1)
            asked.set_result("here")

        standing = asyncio.create_task(stand_still())
        assert await answered(request(), KafkaConfig(bootstrap="b:4")) == "here"
        await standing

    run(scenario())


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:nine", "no.such.host.invalid:9092"])
def test_nobody_there_is_a_reason(address: str) -> None:
    assert refusal(address)


def test_one_of_several_addresses_is_enough() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert refusal(f"127.0.0.1:1, 127.0.0.1:{port}") is None


def test_a_short_command_does_not_wait_for_a_broker() -> None:
    with pytest.raises(BrokerUnavailable, match=r"no Kafka broker answers at 127\.0\.0\.1:1 "):
        runtime.reachable(Common(bootstrap="127.0.0.1:1"))


def record(name: str, level: int, text: str, *arguments: object) -> logging.LogRecord:
    return logging.LogRecord(name, level, "", 0, text, arguments, None)


def test_each_kind_of_warning_is_let_through_once_a_minute() -> None:
    now_s = 0.0
    seldom = Seldom(lambda: now_s)
    shown = 0
    for number in range(1_000):
        shown += seldom.filter(record("aiokafka.a", logging.ERROR, "node %s is away", number))
        shown += seldom.filter(record("aiokafka.b", logging.WARNING, "node %s is away", number))
    assert shown == 2
    assert seldom.filter(record("aiokafka.a", logging.INFO, "node %s is away"))
    now_s = EVERY_S
    assert seldom.filter(record("aiokafka.a", logging.ERROR, "node %s is away"))


def test_every_logger_of_the_client_library_has_the_filter_once() -> None:
    quiet()
    quiet()
    theirs = [name for name in logging.root.manager.loggerDict if name.startswith("aiokafka")]
    assert theirs
    for name in theirs:
        filters = logging.getLogger(name).filters
        assert sum(isinstance(each, Seldom) for each in filters) == 1


async def test_a_question_that_the_broker_does_not_take_names_it() -> None:
    broker = MemoryBroker(clock=SystemClock())
    async with Client(Config(), transport=broker.transport("c"), grace_ms=0) as client:
        broker.cut("c", 0.2)
        with pytest.raises(BrokerUnavailable, match=r":9092 has not answered for 0\.1 s"):
            await client.ask("t", layers=["a"], timeout_ms=100)


def test_each_loop_has_its_own_knowledge() -> None:
    async def leave_it_away() -> None:
        absence("b:5").began(3.0, 45.0, "it has fallen silent")
        assert str(absence("b:5")) == "the Kafka broker at b:5 has not answered for 3 s"

    async def look() -> str:
        return str(absence("b:5"))

    run(leave_it_away())
    assert run(look()) == ""
