"""Nodes of Kafka whose disks can be made slow, while their sockets are as fast as ever."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from anabranch.dev.local_kafka import LocalKafka

__all__ = ["Disk", "three_nodes"]

SOURCE: Final = Path(__file__).with_name("slow_disk.c")
WRITE_US: Final = 30_000
"""How much longer each write takes."""


class Disk:
    """The disks of all nodes of a cluster."""

    def __init__(self, folder: Path) -> None:
        self._library = folder / "slow_disk.so"
        self._flag = folder / "slow"
        compiler = ["cc", "-O2", "-shared", "-fPIC", "-o", self._library, SOURCE, "-ldl"]
        subprocess.run(compiler, check=True)

    @property
    def environ(self) -> dict[str, str]:
        """What a process needs to have them."""
        return {
            "LD_PRELOAD": str(self._library),
            "SLOW_DISK_WHILE": str(self._flag),
            "SLOW_DISK_US": str(WRITE_US),
        }

    @contextmanager
    def slow(self) -> Iterator[None]:
        """They are, inside."""
        self._flag.touch()
        try:
            yield
        finally:
            self._flag.unlink()


@contextmanager
def three_nodes() -> Iterator[tuple[LocalKafka, Disk]]:
    """A cluster whose clients go through proxies and whose disks may be slow."""
    with tempfile.TemporaryDirectory() as folder:
        disk = Disk(Path(folder))
        with LocalKafka(nodes=3, proxied=True, environ=disk.environ) as kafka:
            yield kafka, disk
