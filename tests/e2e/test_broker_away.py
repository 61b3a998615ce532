"""A broker that is not there yet, falls silent, or goes: what processes say, and when they end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from anabranch.dev.embedded import EmbeddedBroker

CALL = [sys.executable, "-c", "from anabranch.cli import main; main()"]
TIMEOUT_S = 120
AWAY_MS = 4_000
ROLES = ("coordinator", "worker")
LAYER = """
from anabranch.layers.api import Item, layer

@layer("fruit")
async def fruit(request):
    return [Item("fruit:1", 1.0)]
"""


class Processes:
    """A coordinator and a worker, told where the broker is."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "fruits.py").write_text(LAYER)
        (folder / "anabranch.toml").write_text('[layers.fruit]\nplugin = "fruits:fruit"\n')
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, bootstrap: str) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("ANABRANCH_", "OTEL_"))}
        environ = kept | {
            "ANABRANCH_KAFKA__BOOTSTRAP": bootstrap,
            "ANABRANCH_KAFKA__REQUEST_TIMEOUT_MS": str(AWAY_MS),
        }
        for role in ROLES:
            with (self._folder / f"{role}.log").open("wb") as log:
                self.running[role] = subprocess.Popen(
                    [*CALL, role], cwd=self._folder, env=environ, stdout=log, stderr=log
                )

    def log(self, role: str) -> list[str]:
        return (self._folder / f"{role}.log").read_text().splitlines()

    def until(self, text: str) -> None:
        """Wait until all have said so."""
        end = time.monotonic() + TIMEOUT_S
        for role in ROLES:
            while not any(text in line for line in self.log(role)):
                assert self.running[role].poll() is None, self.log(role)
                assert time.monotonic() < end, self.log(role)
                time.sleep(0.05)

    def ended(self, role: str) -> int:
        return self.running[role].wait(TIMEOUT_S)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    found = Processes(tmp_path)
    yield found
    for process in found.running.values():
        process.kill()
        process.wait()


def a_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def test_whoever_starts_before_the_broker_waits_for_it(processes: Processes) -> None:
    port = a_port()
    processes.start(f"127.0.0.1:{port}")
    processes.until(f"no Kafka broker answers at 127.0.0.1:{port}")
    with EmbeddedBroker(port):
        processes.until("ready ")
        for role in ROLES:
            assert len(processes.log(role)) == 3, processes.log(role)


def test_a_broker_that_never_comes_is_given_up_with_the_reason(processes: Processes) -> None:
    port = a_port()
    processes.start(f"127.0.0.1:{port}")
    for role in ROLES:
        assert processes.ended(role) == 1
        said = processes.log(role)
        assert len(said) == 2, said
        assert said[-1].startswith(f"error: no Kafka broker answers at 127.0.0.1:{port} (")
        assert "refused" in said[-1] or "Connect call failed" in said[-1]


def test_a_broker_that_goes_is_one_line_and_given_up_with_the_reason(processes: Processes) -> None:
    with EmbeddedBroker() as broker:
        processes.start(broker.bootstrap)
        processes.until("ready ")
    for role in ROLES:
        assert processes.ended(role) == 1
        said = [line for line in processes.log(role) if not line.startswith("ready ")]
        away = f"the Kafka broker at {broker.bootstrap} has not answered for "
        assert said[-1].startswith(f"error: {role} "), said
        assert away in said[-1], said
        assert len(said) <= 3, said


def test_a_broker_that_falls_silent_for_a_while_is_two_lines(processes: Processes) -> None:
    with EmbeddedBroker() as broker:
        processes.start(broker.bootstrap)
        processes.until("ready ")
        assert broker._process is not None
        os.kill(broker._process.pid, signal.SIGSTOP)
        processes.until("it has fallen silent")
        os.kill(broker._process.pid, signal.SIGCONT)
        processes.until("is back after")
