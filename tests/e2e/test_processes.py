"""Coordinators and workers as processes on Apache Kafka, asked in plain JSON."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from anabranch.config import Config, KafkaConfig, load
from anabranch.kafka.client import KafkaTransport
from anabranch.kafka.topics import Topics, ensure_topics
from anabranch.layers import Request
from anabranch_synthetic import Synthetic, SyntheticConfig, expected_items

pytestmark = pytest.mark.kafka

SETTINGS = """
namespace = "{namespace}"
mode = "{mode}"
[kafka]
bootstrap = "{bootstrap}"
session_timeout_ms = 6000
[types.t]
layers = ["a", "b", "c"]
[layers.a]
plugin = "synthetic"
items = 3
[layers.b]
plugin = "synthetic"
items = 2
[layers.c]
plugin = "synthetic"
group = "cpu"
items = 4
"""


class Fleet:
    """Processes of ours, and what they said."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.processes: dict[str, asyncio.subprocess.Process] = {}

    async def start(self, name: str, *command: str) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "anabranch", *command, "--config", str(self._path),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "ANABRANCH_INSTANCE": name},
        )  # fmt: skip
        self.processes[name] = process

    async def ready(self) -> None:
        async with asyncio.timeout(60):
            await asyncio.gather(*map(self._said_ready, self.processes.values()))

    async def _said_ready(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        said = []
        while line := await process.stdout.readline():
            said.append(line.decode())
            if line.startswith(b"ready"):
                return
        raise AssertionError("ended before it was ready:\n" + "".join(said))

    def kill(self, name: str) -> None:
        self.processes[name].kill()

    def signal(self, name: str, number: signal.Signals) -> None:
        self.processes[name].send_signal(number)

    async def stop(self) -> dict[str, int]:
        """Drain all; their exit codes."""
        for process in self.processes.values():
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
        codes = {}
        for name, process in self.processes.items():
            async with asyncio.timeout(40):
                await process.communicate()
            assert process.returncode is not None
            codes[name] = process.returncode
        return codes


@asynccontextmanager
async def fleet_of(path: Path) -> AsyncIterator[Fleet]:
    fleet = Fleet(path)
    for name, command in {
        "c1": ("coordinator",),
        "c2": ("coordinator",),
        "w1": ("worker",),
        "w2": ("worker",),
        "w3": ("worker", "--group", "cpu"),
        "w4": ("worker", "--group", "cpu"),
    }.items():
        await fleet.start(name, *command)
    try:
        await fleet.ready()
        yield fleet
    finally:
        for process in fleet.processes.values():
            if process.returncode is None:
                process.kill()
        await asyncio.gather(*(p.wait() for p in fleet.processes.values()))


@pytest.fixture
async def setting(
    kafka: str, tmp_path: Path, request: pytest.FixtureRequest
) -> tuple[Config, Path]:
    path = tmp_path / "anabranch.toml"
    namespace = f"p{uuid4().hex[:8]}."
    mode = getattr(request, "param", "at_least_once")
    path.write_text(SETTINGS.format(namespace=namespace, bootstrap=kafka, mode=mode))
    config = load(path, environ={})
    await ensure_topics(KafkaTransport(KafkaConfig(bootstrap=kafka)), config, config.groups)
    return config, path


async def send(config: Config, count: int, per_s: int, timeout_ms: int) -> None:
    """Plain JSON at a steady rate."""
    producer = AIOKafkaProducer(bootstrap_servers=config.kafka.bootstrap, acks="all")
    await producer.start()
    topic = Topics(config.namespace).queries
    sent = []
    for n in range(count):
        query = {"id": f"q{n}", "type": "t", "params": {"n": n}, "timeout_ms": timeout_ms}
        sent.append(await producer.send(topic, json.dumps(query).encode(), key=b"%d" % n))
        if n % max(1, per_s // 20) == 0:
            await asyncio.sleep(0.05)
    await asyncio.gather(*sent)
    await producer.stop()


async def answers(config: Config, count: int, within_s: float) -> dict[str, list[dict[str, Any]]]:
    """By id, until `count` ids are answered (and a moment longer, for what is one too many)."""
    consumer = AIOKafkaConsumer(
        Topics(config.namespace).results,
        bootstrap_servers=config.kafka.bootstrap,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    await consumer.start()
    found: dict[str, list[dict[str, Any]]] = {}
    loop = asyncio.get_running_loop()
    until, quiet = loop.time() + within_s, 0
    while loop.time() < until and quiet < 4:
        batches = await consumer.getmany(timeout_ms=500)
        quiet = quiet + 1 if len(found) == count and not batches else 0
        for records in batches.values():
            for record in records:
                answer = json.loads(record.value)
                found.setdefault(answer["id"], []).append(answer)
    await consumer.stop()
    return found


def check_content(answer: dict[str, Any]) -> None:
    """Items of every layer that is ok, and of no other."""
    n = int(answer["id"][1:])
    request = Request("t", {"n": n}, "", 20, deadline=0.0, remaining_ms=0.0)
    expected = set()
    for name, items in {"a": 3, "b": 2, "c": 4}.items():
        if answer["layers"][name]["status"] == "ok":
            layer = Synthetic(name, SyntheticConfig(items=items))
            expected |= {item.id for item in expected_items(layer, request)}
    assert {item["id"] for item in answer["items"]} == expected


async def test_ten_thousand_plain_json_queries_are_each_answered_exactly_once(
    setting: tuple[Config, Path],
) -> None:
    config, path = setting
    async with fleet_of(path) as fleet:
        reading = asyncio.ensure_future(answers(config, 10_000, within_s=240))
        await send(config, 10_000, per_s=800, timeout_ms=60_000)
        found = await reading
        codes = await fleet.stop()
    assert len(found) == 10_000
    assert {len(given) for given in found.values()} == {1}
    for (answer,) in found.values():
        assert answer["status"] == "complete"
        check_content(answer)
    assert set(codes.values()) == {0}


async def test_kill_9_of_a_coordinator_and_a_worker_leaves_no_query_silent(
    setting: tuple[Config, Path],
) -> None:
    config, path = setting
    async with fleet_of(path) as fleet:
        reading = asyncio.ensure_future(answers(config, 1_000, within_s=120))
        sending = asyncio.ensure_future(send(config, 1_000, per_s=100, timeout_ms=8_000))
        await asyncio.sleep(4)
        fleet.kill("c1")
        fleet.kill("w1")
        await sending
        found = await reading
        codes = await fleet.stop()
    assert len(found) == 1_000, "silence"
    statuses = Counter(given[0]["status"] for given in found.values())
    assert statuses["complete"] > 500, statuses
    for given in found.values():
        for answer in given:
            check_content(answer)
    assert {name: code for name, code in codes.items() if code} == {"c1": -9, "w1": -9}


@pytest.mark.parametrize("setting", ["exactly_once"], indirect=True)
async def test_exactly_once_holds_under_kill_9_and_sigstop_of_coordinators(
    setting: tuple[Config, Path],
) -> None:
    config, path = setting
    async with fleet_of(path) as fleet:
        reading = asyncio.ensure_future(answers(config, 2_000, within_s=180))
        sending = asyncio.ensure_future(send(config, 2_000, per_s=100, timeout_ms=30_000))
        await asyncio.sleep(4)
        fleet.kill("c1")
        await fleet.start("c3", "coordinator")
        await asyncio.sleep(8)
        fleet.signal("c2", signal.SIGSTOP)  # for longer than its session
        await asyncio.sleep(8)
        fleet.signal("c2", signal.SIGCONT)
        await fleet.start("c4", "coordinator")
        await sending
        found = await reading
        codes = await fleet.stop()
    assert len(found) == 2_000, "silence"
    assert {len(given) for given in found.values()} == {1}, "answered twice"
    for (answer,) in found.values():
        check_content(answer)
    assert codes["c2"] not in (0, None), "a zombie came back under its old name"
    assert {code for name, code in codes.items() if name not in {"c1", "c2"}} == {0}
