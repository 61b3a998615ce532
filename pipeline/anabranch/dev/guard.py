"""A guard outlives whoever started it by a moment, and takes their processes along.

Other processes join the guard's process group. It waits for its stdin to end, which the kernel
sees to however its parent dies, then kills the group and removes the folder it was given.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

__all__ = ["Guard"]


class Guard:
    """The guard of one set of processes; `group` is what they are started with."""

    def __init__(self, folder: Path | None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "anabranch.dev.guard", str(folder or "")],
            stdin=subprocess.PIPE,
            process_group=0,
        )
        self.group = self._process.pid

    def release(self) -> None:
        """End the guard, and what is left of its group."""
        self._process.communicate()


def main() -> None:
    """Wait for the end of stdin, then kill this process group, from outside of it."""
    while os.read(0, 4096):
        pass
    folder, group = sys.argv[1], os.getpgrp()
    if os.fork():
        os._exit(0)
    os.setsid()
    with suppress(ProcessLookupError):  # all have ended already
        os.killpg(group, signal.SIGKILL)
    if folder:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
