"""Children of a benchmark."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import NotReady, Processes, cpu_s

READY = "import time; print('ready', flush=True); time.sleep(60)"
DYING = """
import asyncio, os, sys
from processes import Processes

async def main():
    async with Processes() as processes:
        child = await processes.start("gathers", sys.executable, "-c", sys.argv[1])
        print(child.pid, processes.folder, flush=True)
        os.kill(os.getpid(), 9)

asyncio.run(main())
"""


async def test_a_child_is_ready_when_it_says_so_and_has_ended_with_the_block() -> None:
    async with Processes() as processes:
        child = await processes.start("gathers", sys.executable, "-c", READY)
        folder = processes.folder
        assert child.is_alive
    assert not child.is_alive
    assert not folder.exists()


async def test_a_child_that_was_killed_can_be_started_again() -> None:
    async with Processes() as processes:
        child = await processes.start("gathers", sys.executable, "-c", READY)
        first = child.pid
        child.kill()
        await child.start()
        assert child.is_alive
        assert child.pid != first


async def test_a_child_that_ends_early_is_told_with_its_last_words() -> None:
    async with Processes() as processes:
        with pytest.raises(NotReady, match="no broker"):
            await processes.start("gathers", sys.executable, "-c", "raise SystemExit('no broker')")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_cpu_of_a_child_is_counted_and_none_of_what_is_gone() -> None:
    burn = "while True: pass"
    async with Processes() as processes:
        child = await processes.start(
            "gathers", sys.executable, "-c", f"print('ready', flush=True)\n{burn}"
        )
        while not cpu_s(child.pid):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert cpu_s(child.pid) == 0.0


def test_children_and_their_files_go_with_a_benchmark_that_is_killed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", DYING, READY],
        capture_output=True, text=True, check=False, timeout=60,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    pid, folder = done.stdout.split()
    give_up = time.monotonic() + 20
    while (is_running(int(pid)) or Path(folder).exists()) and time.monotonic() < give_up:
        time.sleep(0.05)
    assert not is_running(int(pid))
    assert not Path(folder).exists()


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return not Path("/proc").exists()
