"""A real Kafka as local processes: it keeps what it should and leaves nothing behind."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from anabranch.dev.local_kafka import LocalKafka
from anabranch.errors import BrokerUnavailable

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

HOLD_A_KAFKA = """
import sys
from anabranch.dev.local_kafka import LocalKafka
with LocalKafka() as kafka:
    print(kafka.bootstrap, kafka.folder, flush=True)
    sys.stdin.read()
"""


async def create(bootstrap: str, topic: str, replication: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, 1, replication)])
    finally:
        await admin.close()


async def send(bootstrap: str, topic: str, value: bytes) -> int:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True) as producer:
        while True:
            try:
                return int((await producer.send_and_wait(topic, value, partition=0)).offset)
            except KafkaError as error:
                if not error.retriable:  # a new topic has no leader for a moment
                    raise


async def read(bootstrap: str, topic: str) -> bytes:
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap) as consumer:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        consumer.seek(partition, 0)
        return bytes((await consumer.getone()).value or b"")


async def test_a_given_folder_keeps_the_records_and_the_logs(tmp_path: Path) -> None:
    with LocalKafka(folder=tmp_path) as kafka:
        await create(kafka.bootstrap, "kept", 1)
        assert await send(kafka.bootstrap, "kept", b"value") == 0
    with LocalKafka(folder=tmp_path) as kafka:
        assert await read(kafka.bootstrap, "kept") == b"value"
    assert kafka.node(1).pid is None
    assert kafka.node(1).log.exists()


def test_a_killed_parent_takes_its_kafka_and_its_folder_along() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", HOLD_A_KAFKA],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    bootstrap, folder = parent.stdout.readline().split()
    assert Path(folder).is_dir()
    host, port = bootstrap.rsplit(":", 1)
    with (
        socket.create_connection((host, int(port)), timeout=60) as connection,
        suppress(ConnectionResetError),
    ):
        parent.send_signal(signal.SIGKILL)
        parent.communicate()
        assert connection.recv(1) == b"", "the node's end of the connection was not closed"


def test_a_wrong_setting_is_told_in_the_nodes_own_words() -> None:
    kafka = LocalKafka(settings={"log.retention.hours": "soon"})
    with pytest.raises(BrokerUnavailable, match=r"soon"):
        kafka.start()
    assert not kafka.folder.exists()


async def test_three_nodes_lose_nothing_when_one_is_killed() -> None:
    with LocalKafka(nodes=3) as kafka:
        await create(kafka.bootstrap, "safe", 3)
        assert await send(kafka.bootstrap, "safe", b"before") == 0
        kafka.node(2).kill()
        assert kafka.node(2).pid is None
        assert await send(kafka.bootstrap, "safe", b"while") == 1
        kafka.node(2).start()
        kafka.node(3).suspend()
        kafka.node(3).resume()
        assert await send(kafka.bootstrap, "safe", b"after") == 2
        assert await read(kafka.bootstrap, "safe") == b"before"
    assert not kafka.folder.exists()
