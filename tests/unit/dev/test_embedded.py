"""The embedded broker speaks Kafka, and never outlives whoever started it."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from anabranch.cli import ports
from anabranch.dev import embedded
from anabranch.dev.embedded import EmbeddedBroker
from anabranch.errors import BrokerUnavailable, ConfigError

HOLD_A_BROKER = """
import sys
from anabranch.dev.embedded import EmbeddedBroker
with EmbeddedBroker() as broker:
    print(broker.bootstrap, flush=True)
    sys.stdin.read()
"""


def connect(bootstrap: str) -> socket.socket:
    host, port = bootstrap.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=30)


async def test_a_record_is_acknowledged_with_its_offset() -> None:
    with EmbeddedBroker() as broker:
        async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap) as producer:
            offsets = [
                (await producer.send_and_wait("topic", b"value", partition=3)).offset
                for _ in range(2)
            ]
    assert offsets == [0, 1]


async def test_a_groups_only_member_gets_all_four_partitions() -> None:
    with EmbeddedBroker() as broker:
        async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap) as producer:
            await producer.partitions_for("topic")
        consumer = AIOKafkaConsumer("topic", bootstrap_servers=broker.bootstrap, group_id="g")
        async with consumer:
            assert len(consumer.assignment()) == 4


def test_two_brokers_run_side_by_side() -> None:
    with EmbeddedBroker() as one, EmbeddedBroker() as other:
        assert one.bootstrap != other.bootstrap
        assert one.alive
        assert other.alive


def test_leaving_the_block_ends_the_process() -> None:
    with EmbeddedBroker() as broker:
        pass
    assert not broker.alive
    with pytest.raises(ConnectionRefusedError):
        connect(broker.bootstrap)


def test_stopping_twice_is_harmless() -> None:
    broker = EmbeddedBroker()
    broker.start()
    broker.stop()
    broker.stop()
    assert not broker.alive


def test_a_killed_parent_takes_its_broker_along() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", HOLD_A_BROKER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    with connect(parent.stdout.readline().strip()) as connection, suppress(ConnectionResetError):
        parent.send_signal(signal.SIGKILL)
        parent.communicate()
        assert connection.recv(1) == b"", "the broker's end of the connection was not closed"


async def test_a_broker_that_dies_is_noticed() -> None:
    with EmbeddedBroker() as broker:
        assert broker._process is not None
        broker._process.kill()
        await broker.ended()
        broker._process.wait()
        assert not broker.alive


def test_a_child_that_does_not_come_up_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded.sys, "executable", shutil.which("false"))
    with pytest.raises(BrokerUnavailable, match="confluent-kafka"):
        EmbeddedBroker().start()


async def test_it_is_found_at_the_port_that_was_asked_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with EmbeddedBroker(port) as broker:
        assert broker.bootstrap == f"127.0.0.1:{port}"
        async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap) as producer:
            assert (await producer.send_and_wait("topic", b"value", partition=3)).offset == 0
        with pytest.raises(BrokerUnavailable, match=f"port {port} of 127.0.0.1 cannot be had"):
            EmbeddedBroker(port).start()


def test_without_a_wish_it_is_the_usual_port_or_any(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        monkeypatch.setattr(ports, "USUAL", number)
        assert ports.chosen(None) is None
        with pytest.raises(ConfigError, match="choose another with --port"):
            ports.chosen(number)
    assert ports.chosen(None) == number
