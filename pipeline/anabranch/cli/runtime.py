"""The runtime file: where `anabranch up` runs, so that `anabranch ask` finds it.

One file per working folder, in the user's state folder (a runtime folder is not everywhere, and
its substitute not the user's alone); it goes away with `up`. `up` holds a lock on it for as long
as it lives, however it ends: one without a lock was left behind, and is ignored. A process id
says nothing, as another process may have it by now (in a container everybody is process 1).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

import msgspec
from msgspec import Struct, structs
from platformdirs import user_state_path

from anabranch.cli.common import Common, note
from anabranch.config.settings import Config
from anabranch.errors import ConfigError
from anabranch.kafka.availability import nobody_answers, refusal

__all__ = ["Running", "find", "published", "reachable"]

LOOKING_S: Final = 1.0
"""Whoever looks whether a file is locked has it locked for a moment: wait for that long."""
LOOK_S: Final = 0.02


class Running(Struct, frozen=True):
    """A running pipeline: how to reach it, and the process that `up` is."""

    bootstrap: str
    namespace: str
    pid: int


def find(folder: Path | None = None) -> Running | None:
    """The pipeline that was started in a folder (the current one), if it still runs."""
    try:
        with _path(folder).open("rb") as file:
            if not _is_locked(file):
                return None
            return msgspec.json.decode(file.read(), type=Running)
    except (OSError, msgspec.MsgspecError):
        return None


def reachable(common: Common) -> Config:
    """The configuration, on the broker of `anabranch up` if nothing else is named.

    Somebody waits for what follows, so nobody waits for a broker that is away.

    Raises:
        ConfigError: as `Common.load`.
        BrokerUnavailable: there is none.
    """
    config = common.load()
    running = None if common.names("kafka.bootstrap") else find()
    if running is not None:
        kafka = structs.replace(config.kafka, bootstrap=running.bootstrap, fetch_max_wait_ms=5)
        config = structs.replace(config, kafka=kafka, namespace=running.namespace)
    if (why := refusal(config.kafka.bootstrap)) is not None:
        raise nobody_answers(config.kafka, why)
    return config


@contextmanager
def published(bootstrap: str, namespace: str) -> Iterator[None]:
    """Let `ask` find this process's pipeline from the current folder.

    Where nothing can be written it is not found, and works all the same.

    Raises:
        ConfigError: one runs here already.
    """
    path = _path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _lock(path)
    except OSError as error:
        note(
            f"{path.parent} cannot be written ({error.strerror}), so `anabranch ask` has to be "
            f"told where this runs; set XDG_STATE_HOME to a folder that can, or name the broker"
        )
        yield
        return
    try:
        file.write(msgspec.json.encode(Running(bootstrap, namespace, os.getpid())))
        file.flush()
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


def _lock(path: Path) -> IO[bytes]:
    """The file of that name, empty and locked.

    Raises:
        ConfigError: another process has it.
    """
    give_up = time.monotonic() + LOOKING_S
    while True:
        file = path.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(file, path):
                file.truncate(0)
                return file
        except BlockingIOError:
            if time.monotonic() > give_up:
                file.close()
                raise ConfigError(_who_runs()) from None
            time.sleep(LOOK_S)
        file.close()


def _is_at(file: IO[bytes], path: Path) -> bool:
    """Whether it is still the file of that name: its owner may have removed it meanwhile."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False


def _is_locked(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _who_runs() -> str:
    other = find()
    who = f"process {other.pid}" if other else "another process"
    where = f", on {other.bootstrap}" if other else ""
    return (
        f"{who} runs a pipeline from this folder already{where}; stop it, or start this one in "
        f"another folder"
    )


def _path(folder: Path | None = None) -> Path:
    where = str((folder or Path.cwd()).resolve())
    name = hashlib.sha256(os.fsencode(where)).hexdigest()[:16]
    return user_state_path("anabranch").absolute() / "running" / f"{name}.json"
