"""A steady load for some minutes: memory, files, threads and asyncio tasks do not grow.

SOAK_MINUTES=30 python -m pytest tests/chaos/test_soak.py
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import statistics
import sys
import urllib.request
from collections import defaultdict
from pathlib import Path
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer
from chaos_checker import stuck
from fleet import SETTINGS, Fleet

from anabranch.config.settings import Config, load
from anabranch.kafka.client import KafkaTransport
from anabranch.kafka.topics import Topics, ensure_topics

MINUTES = float(os.environ.get("SOAK_MINUTES", "3"))
PER_S = 300
SMALL = """
[topics]
queries = 4
tasks = 4
[coordinator]
cache_max_entries = 500
dedupe_window_ms = 10000
dedupe_max_ids = 1000
[types.t]"""
ROLES = {"c1": ["coordinator"], "w1": ["worker"], "w2": ["worker", "--group", "cpu"]}

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
    pytest.mark.timeout(MINUTES * 60 + 300),
]


async def test_memory_files_threads_and_tasks_do_not_grow_under_a_steady_load(
    kafka: str, tmp_path: Path
) -> None:
    path = tmp_path / "anabranch.toml"
    text = SETTINGS.format(namespace=f"k{uuid4().hex[:8]}.", mode="at_least_once", bootstrap=kafka)
    path.write_text(text.replace("[types.t]", SMALL))
    config = load(path, environ={})
    await ensure_topics(KafkaTransport(config.kafka), config, config.groups)
    fleet = Fleet(path)
    ports = {name: free_port() for name in ROLES}
    for name, command in ROLES.items():
        await fleet.start(name, *command, "--health-port", str(ports[name]))
    try:
        await fleet.ready()
        await _load(config, fleet, "warm", 10.0)  # not all connections are there at the first
        before = {name: tasks(port) for name, port in ports.items()}
        taken = await _load(config, fleet, "q", MINUTES * 60)
        after = {name: tasks(port) for name, port in ports.items()}
        assert not any(p.returncode for p in fleet.processes.values())
        assert await stuck(config) == []
    finally:
        codes = await fleet.stop()
    assert set(codes.values()) == {0}
    for name, samples in taken.items():
        assert grown([s[0] for s in samples]) < 0.05, (name, "memory", samples)
        for what, column in (("files", 1), ("threads", 2)):
            half = [s[column] for s in samples[len(samples) // 2 :]]
            assert max(half) - min(half) <= 8, (name, what, half)
        assert after[name] <= before[name] + 8, (name, "tasks", before, after)


async def _load(
    config: Config, fleet: Fleet, prefix: str, seconds: float
) -> dict[str, list[tuple[int, int, int]]]:
    """Ask at a steady rate; memory in bytes, open files and threads of each process, by time."""
    producer = AIOKafkaProducer(bootstrap_servers=config.kafka.bootstrap)
    topic, taken = Topics(config.namespace).queries, defaultdict(list)
    loop, count = asyncio.get_running_loop(), int(PER_S * seconds)
    async with producer:
        begin = loop.time()
        for n in range(count):
            await asyncio.sleep(max(0.0, begin + n / PER_S - loop.time()))
            query = {"id": f"{prefix}{n}", "type": "t", "params": {"n": n % 2_000}}
            await producer.send(topic, json.dumps(query).encode(), key=b"%d" % (n % 2_000))
            if n % (count // 120) == 0:
                for name, process in fleet.processes.items():
                    taken[name].append(_sample(process.pid))
        await producer.flush()
    await asyncio.sleep(3)
    return taken


def tasks(port: int) -> int:
    """Of asyncio, in the process that answers there."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/live", timeout=10) as live:
        return int(json.load(live)["tasks"])


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _sample(pid: int) -> tuple[int, int, int]:
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return int(fields["VmRSS"].split()[0]) * 1024, files, int(fields["Threads"])


def grown(memory: list[int]) -> float:
    """Growth over the second half, by linear regression, as a share of its mean."""
    half = memory[len(memory) // 2 :]
    slope = statistics.linear_regression(range(len(half)), half).slope
    return slope * len(half) / statistics.fmean(half)
