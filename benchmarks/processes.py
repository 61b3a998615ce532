"""Child processes of a benchmark: started until they say `ready`, measured, killed and ended."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from anabranch.dev.guard import Guard

READY_S, STOP_S = 90.0, 10.0
POLL_S = 0.05
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used so far (Linux; elsewhere, and once it is gone, 0)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


class NotReady(Exception):  # noqa: N818
    """A process did not start."""


class Process:
    """One child; what it prints is kept in a file."""

    def __init__(
        self, role: str, command: tuple[str, ...], group: int, log: Path, env: Mapping[str, str]
    ) -> None:
        self.role = role
        self._command = command
        self._group = group
        self._log = log
        self._env = env
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    @property
    def is_alive(self) -> bool:
        return self._child is not None and self._child.poll() is None

    @property
    def last_words(self) -> str:
        """The last lines that it printed."""
        return b"\n".join(self._said()[-5:]).decode(errors="replace")

    async def start(self) -> None:
        """Start it (again) and wait until it is ready.

        Raises:
            NotReady: it ended, or took too long; with the last that it said.
        """
        self._spawn()
        give_up = time.monotonic() + READY_S
        while not any(line.startswith(b"ready") for line in self._said()):
            if not self.is_alive or time.monotonic() > give_up:
                command = " ".join(self._command)
                raise NotReady(f"{command}: it did not get ready\n{self.last_words}")
            await asyncio.sleep(POLL_S)

    def _spawn(self) -> None:
        with self._log.open("wb") as log:
            self._child = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | self._env,
                process_group=self._group,
            )

    def kill(self) -> None:
        """SIGKILL, now."""
        if self.is_alive:
            os.kill(self.pid, signal.SIGKILL)

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL if that takes too long."""
        if self._child is None:
            return
        self._child.terminate()
        give_up = time.monotonic() + STOP_S
        while self.is_alive and time.monotonic() < give_up:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
        self._child.kill()
        self._child.wait()

    def _said(self) -> list[bytes]:
        return self._log.read_bytes().splitlines()


class Processes:
    """Starts children; all have ended with the block, however this process ends."""

    def __init__(self) -> None:
        self._all: list[Process] = []

    @property
    def folder(self) -> Path:
        """For their files; removed with the block."""
        return self._folder

    async def start(self, role: str, *command: str, **env: str) -> Process:
        """A child that is ready. `role` is what its figures are called."""
        log = self.folder / f"{len(self._all)}.log"
        child = Process(role, command, self._guard.group, log, env)
        self._all.append(child)
        await child.start()
        return child

    async def __aenter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="anabranch-bench-"))
        self._guard = Guard(self._folder)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(child.stop() for child in self._all))
        shutil.rmtree(self._folder, ignore_errors=True)
        self._guard.release()
