"""The runtime file: where `anabranch up` runs, so that `anabranch ask` finds it.

One file per working folder, in the user's state folder (a runtime folder is not everywhere, and
its substitute not the user's alone); it goes away with `up`. One that a killed `up` left behind
names a process that is gone, and is ignored.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct, structs
from platformdirs import user_state_path

from anabranch.cli.common import Common
from anabranch.config import Config
from anabranch.errors import ConfigError

__all__ = ["Running", "find", "published", "reachable"]


class Running(Struct, frozen=True):
    """A running pipeline: how to reach it, and the process that `up` is."""

    bootstrap: str
    namespace: str
    pid: int


def find(folder: Path | None = None) -> Running | None:
    """The pipeline that was started in a folder (the current one), if it still runs."""
    try:
        running = msgspec.json.decode(_path(folder).read_bytes(), type=Running)
        os.kill(running.pid, 0)
    except (OSError, msgspec.MsgspecError):
        return None
    return running


def reachable(common: Common) -> Config:
    """The configuration, on the broker of `anabranch up` if nothing else is named.

    Raises:
        ConfigError: as `Common.load`.
    """
    config = common.load()
    running = None if common.names("kafka.bootstrap") else find()
    if running is None:
        return config
    kafka = structs.replace(config.kafka, bootstrap=running.bootstrap, fetch_max_wait_ms=5)
    return structs.replace(config, kafka=kafka, namespace=running.namespace)


@contextmanager
def published(bootstrap: str, namespace: str) -> Iterator[None]:
    """Let `ask` find this process's pipeline from the current folder.

    Raises:
        ConfigError: one runs here already.
    """
    other = find()
    if other is not None:
        raise ConfigError(
            f"process {other.pid} runs a pipeline from this folder already, on {other.bootstrap}; "
            f"stop it, or start this one in another folder"
        )
    path = _path()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(Running(bootstrap, namespace, os.getpid())))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _path(folder: Path | None = None) -> Path:
    where = str((folder or Path.cwd()).resolve())
    name = hashlib.sha256(where.encode()).hexdigest()[:16]
    return user_state_path("anabranch") / "running" / f"{name}.json"
