"""Coordinators and workers as processes, what they are asked, and what is checked of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from anabranch.config.settings import Config
from anabranch.kafka.topics import Topics
from anabranch.layers.api import Request
from anabranch_synthetic import Synthetic, SyntheticConfig, expected_items

__all__ = ["SETTINGS", "Fleet", "answers", "check_content", "send"]

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
    """Processes of ours; what they say goes to a file each, beside the configuration."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.processes: dict[str, asyncio.subprocess.Process] = {}

    async def start(self, name: str, *command: str, **environ: str) -> None:
        with self.log(name).open("wb") as log:
            self.processes[name] = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "anabranch", *command, "--config", str(self._path),
                stdout=log, stderr=asyncio.subprocess.STDOUT,
                env={**os.environ, "ANABRANCH_INSTANCE": name, **environ},
            )  # fmt: skip

    def log(self, name: str) -> Path:
        """What a process said."""
        return self._path.with_name(f"{name}.log")

    async def ready(self, *names: str) -> None:
        """Wait until these, or all, say that they are."""
        async with asyncio.timeout(90):
            for name in names or tuple(self.processes):
                while not self.is_ready(name):
                    ended = self.processes[name].returncode
                    assert ended is None, f"{name} ended before it was ready: {self._said(name)}"
                    await asyncio.sleep(0.1)

    def is_ready(self, name: str) -> bool:
        """Whether it said so, and runs."""
        if self.processes[name].returncode is not None:
            return False
        return any(line.startswith("ready") for line in self._said(name))

    def _said(self, name: str) -> list[str]:
        return self.log(name).read_text().splitlines()

    def kill(self, name: str) -> None:
        self.processes[name].kill()

    def signal(self, name: str, number: signal.Signals) -> None:
        self.processes[name].send_signal(number)

    async def kill_all(self) -> None:
        """Whatever still runs; nothing is left of them."""
        for process in self.processes.values():
            if process.returncode is None:
                process.kill()
        await asyncio.gather(*(process.wait() for process in self.processes.values()))

    async def stop(self) -> dict[str, int]:
        """Drain all; their exit codes."""
        for process in self.processes.values():
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
        codes = {}
        for name, process in self.processes.items():
            async with asyncio.timeout(40):
                await process.wait()
            assert process.returncode is not None
            codes[name] = process.returncode
        return codes


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


def check_content(answer: dict[str, Any], n: int | None = None) -> None:
    """Items of every layer that is ok, and of no other; `n` is the query's, its id's by default."""
    n = int(answer["id"][1:]) if n is None else n
    request = Request("t", {"n": n}, "", 20, deadline=0.0, remaining_ms=0.0)
    expected = set()
    for name, items in {"a": 3, "b": 2, "c": 4}.items():
        if answer["layers"][name]["status"] == "ok":
            layer = Synthetic(name, SyntheticConfig(items=items))
            expected |= {item.id for item in expected_items(layer, request)}
    assert {item["id"] for item in answer["items"]} == expected
