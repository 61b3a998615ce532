"""The index of one repository: kept up to date by one, read by many."""

from __future__ import annotations

import atexit
import hashlib
import logging
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache, cached_property
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final

import platformdirs
import pygit2
from msgspec import Struct

from anabranch.errors import LayerError, LayerTimeout
from anabranch_git.documents import Reading, update_documents
from anabranch_git.history import update_history
from anabranch_git.progress import Progress, silent
from anabranch_git.repository import Repository
from anabranch_git.storage import Cancelled, connect, get, lock, prepare, put, transaction

__all__ = ["Index", "Updated"]

log = logging.getLogger(__name__)

_VERSION: Final = 4
"""Raised when what is indexed of a file or commit changes: older index files are begun anew."""

_DEADLINE_CHECK_STEPS: Final = 20_000
"""Instructions of SQLite's machine between two looks at the clock (a millisecond, about)."""


class Updated(Struct, frozen=True):
    """What an update found to do."""

    commits: int
    files: int


class Index:
    """Full-text index of a repository, in a file that any number of processes may share.

    Layers of one repository each have their own `Index` on the same file: the first to update
    does the work while the others wait for its lock, and then have nothing left to do.

    Raises:
        ConfigError: there is no repository at `repo`.
    """

    def __init__(self, repo: Path, path: Path | None, reading: Reading) -> None:
        repository = Repository(repo)
        self.name = repository.name
        self._repo = repository.folder
        self._reading = reading
        self.path = path or _default_path(repository, reading)
        self._idle: SimpleQueue[sqlite3.Connection] = SimpleQueue()

    @cached_property
    def identity(self) -> str:
        """What its repository is called in ids. May read for a moment."""
        return Repository(self._repo).identity

    def update(
        self, progress: Progress = silent, cancelled: Callable[[], bool] = lambda: False
    ) -> Updated:
        """Index what is new. Blocks; safe to call from several threads and processes.

        `cancelled` is asked between batches; what was done until then is kept.

        Raises:
            ConfigError: the index file cannot be used.
            LayerError: the repository is damaged, or the index cannot be written.
            Cancelled: `cancelled` became true.
        """

        def tick(stage: str, done: int, total: int) -> None:
            progress(stage, done, total)
            if cancelled():
                raise Cancelled

        repository = Repository(self._repo)
        signature = f"{_VERSION} {self._reading}"
        with lock(self.path, cancelled), closing(prepare(self.path, signature)) as connection:
            try:
                _ = self.identity  # asked for where the repository may not be read any more
                commits = update_history(connection, repository, tick)
                files = update_documents(connection, repository, self._reading, tick)
            except (pygit2.GitError, KeyError, ValueError) as error:
                raise LayerError(f"{self._repo} cannot be read: {error!r}; try git fsck") from error
            except sqlite3.Error as error:
                raise LayerError(f"{self.path} cannot be written: {error}") from error
        return Updated(commits, files)

    def moved_on(self, layer: str) -> bool:
        """Whether something else is indexed than when this layer last asked; blocks.

        It is kept in the file, as whoever indexed it may be another layer or process.

        Raises:
            LayerError: the index cannot be read or written.
        """
        told = f"told {layer}"
        try:
            with closing(connect(self.path)) as connection:
                state = f"{get(connection, 'history')} {get(connection, 'documents')}"
                if get(connection, told) == state:
                    return False
                with transaction(connection):
                    put(connection, told, state)
        except sqlite3.Error as error:
            raise LayerError(f"{self.path} cannot be written: {error}") from error
        return True

    @contextmanager
    def reading(self, remaining_ms: float) -> Iterator[sqlite3.Connection]:
        """A connection for one question, which is broken off when its time is up.

        Raises:
            LayerTimeout: after `remaining_ms`.
            LayerError: the index is not there, or damaged.
        """
        end = time.monotonic() + remaining_ms / 1000
        connection = self._connection()
        connection.set_progress_handler(lambda: time.monotonic() > end, _DEADLINE_CHECK_STEPS)
        try:
            yield connection
        except sqlite3.DatabaseError as error:
            if time.monotonic() > end:
                raise LayerTimeout("the time was up before the index was searched") from error
            raise LayerError("the index cannot be read") from error
        finally:
            self._idle.put(connection)

    def _connection(self) -> sqlite3.Connection:
        try:
            return self._idle.get_nowait()
        except Empty:
            pass
        try:
            return connect(self.path)
        except sqlite3.DatabaseError as error:
            raise LayerError("the index cannot be opened") from error

    def close(self) -> None:
        """Close idle connections; the index can be used again."""
        while not self._idle.empty():
            self._idle.get().close()


def _default_path(repository: Repository, reading: Reading) -> Path:
    """In the user's cache folder, one file per repository and settings."""
    what = f"{repository.folder}\n{reading}"
    digest = hashlib.sha256(what.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    folder = _usable(platformdirs.user_cache_path("anabranch").absolute() / "git")
    return folder / f"{repository.name}-{digest}.sqlite"


@cache
def _usable(folder: Path) -> Path:
    """This folder, or one of this process's own where nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        log.warning(
            "%s cannot be written (%s), so what is indexed is lost at the end; set XDG_CACHE_HOME "
            "to a folder that can, or `index` of each layer",
            folder,
            error.strerror,
        )
        own = tempfile.mkdtemp(prefix="anabranch-git-")
        atexit.register(shutil.rmtree, own, ignore_errors=True)
        return Path(own)
    return folder
