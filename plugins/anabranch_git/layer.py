"""The layer: an index kept up to date beside the questions, which are answered in threads."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from anabranch import AnabranchError, Invalidate, Item, Request, Result
from anabranch_git.documents import Reading
from anabranch_git.episodic import episodic
from anabranch_git.graph import graph
from anabranch_git.index import Index
from anabranch_git.progress import Progress, silent, terminal
from anabranch_git.question import Question, read_question
from anabranch_git.semantic import semantic
from anabranch_git.storage import Cancelled

__all__ = ["Git", "GitConfig", "open_index"]

Answering = Callable[[sqlite3.Connection, str, Question, int], list[Item]]
"""(index, identity of the repository, question, limit) -> items, best first."""

_KINDS: Final[dict[str, Answering]] = {
    "episodic": episodic,
    "semantic": semantic,
    "graph": graph,
}
_REFRESH_S: Final = 30.0
"""How often a running layer looks for new commits."""

log = logging.getLogger(__name__)


class GitConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """`[layers.<name>]` of `plugin = "git"`."""

    kind: Literal["episodic", "semantic", "graph"]
    repo: str = "."
    """A working tree, a folder in one, or a bare repository."""
    index: str | None = None
    """The index file; by default one per repository in the user's cache folder."""
    max_file_bytes: Annotated[int, Meta(ge=1)] = 500_000
    """Larger files are known by name only."""
    include: tuple[str, ...] = ("*",)
    """Patterns of paths that are read (`*` also stands for slashes): `["docs/*", "*.py"]`."""


class Git:
    """A layer over one repository; `kind` says what it looks for.

    Raises:
        ConfigError: there is no repository.
    """

    Config = GitConfig

    def __init__(self, name: str, config: GitConfig) -> None:
        self.name = name
        self._answer = _KINDS[config.kind]
        self._index = open_index(config)
        self._stopping = threading.Event()
        self._refreshing: asyncio.Task[None] | None = None
        self._invalidate: Invalidate | None = None

    def watch(self, invalidate: Invalidate) -> None:
        """Be given what to call when the repository has moved on."""
        self._invalidate = invalidate

    async def start(self) -> None:
        """Bring the index up to date, with a progress bar on a terminal.

        Raises:
            ConfigError: the index file cannot be used.
        """
        if self._refreshing is not None:
            return
        self._stopping.clear()
        with terminal(f"indexing {self._index.name}") as progress:
            await self._update(progress)
        self._refreshing = asyncio.create_task(self._refresh())

    async def stop(self) -> None:
        """Break off an update, keeping what it has done."""
        self._stopping.set()
        if self._refreshing is not None:
            self._refreshing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._refreshing
            self._refreshing = None
        self._index.close()

    def ask(self, request: Request) -> Result:
        """Search the index; blocking.

        Raises:
            LayerError: the question's params are wrong, or the index cannot be read.
            LayerTimeout: the time was up.
        """
        question = read_question(request.params)
        with self._index.reading(request.remaining_ms) as connection:
            items = self._answer(connection, self._index.identity, question, request.limit)
        return Result(items, tags=(self._tag,))

    @property
    def _tag(self) -> str:
        """Of everything that is answered: what is forgotten when the repository moves on."""
        return f"git:{self._index.identity}"

    async def _refresh(self) -> None:
        """Follow the repository; an update that fails is tried again later."""
        while True:
            await asyncio.sleep(_REFRESH_S)
            try:
                await self._update(silent)
            except (AnabranchError, OSError) as error:
                log.warning("layer %s: the index could not be updated: %s", self.name, error)

    async def _update(self, progress: Progress) -> None:
        try:
            await asyncio.to_thread(self._index.update, progress, self._stopping.is_set)
        except asyncio.CancelledError:
            self._stopping.set()  # the thread ends after its batch
            raise
        except Cancelled:
            log.info("layer %s: indexing was broken off", self.name)
        else:
            await self._tell()

    async def _tell(self) -> None:
        """Have forgotten what was answered from an older index."""
        if self._invalidate is None:
            return
        if await asyncio.to_thread(self._index.moved_on, self.name):
            self._invalidate(self._tag)


def open_index(config: GitConfig) -> Index:
    """The index of a layer, without the layer: for building it ahead of time.

    Raises:
        ConfigError: there is no repository.
    """
    reading = Reading(config.max_file_bytes, config.include)
    path = Path(config.index).expanduser().absolute() if config.index else None
    return Index(Path(config.repo).expanduser().absolute(), path, reading)
