"""The index file: its tables, its connections, and who may write.

Full-text tables hold no text of their own (`content=''`): the rows beside them do, and what was
indexed of a row can be computed from it again, which is how an entry is deleted.
"""

from __future__ import annotations

import fcntl
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from anabranch import ConfigError

__all__ = ["Cancelled", "connect", "get", "lock", "prepare", "put", "transaction"]

_APPLICATION_ID: Final = 0x616E6762  # "angb"
_LOCK_POLL_S: Final = 0.05

_TABLES: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE commits (
    id INTEGER PRIMARY KEY, sha TEXT UNIQUE, time INTEGER, author TEXT, email TEXT,
    subject TEXT, body TEXT, paths TEXT);
CREATE INDEX commits_time ON commits (time);
CREATE VIRTUAL TABLE commits_fts USING fts5 (
    subject, body, author, paths, content='', tokenize="porter unicode61 categories 'L* N* Co M*'");
CREATE TABLE files (
    id INTEGER PRIMARY KEY, path TEXT UNIQUE, blob TEXT, changed INTEGER NOT NULL DEFAULT 0,
    author TEXT NOT NULL DEFAULT '', weight REAL NOT NULL DEFAULT 0);
CREATE VIRTUAL TABLE files_fts USING fts5 (
    name, path, content='', tokenize="porter unicode61 categories 'L* N* Co M*'");
CREATE TABLE sections (
    id INTEGER PRIMARY KEY, file INTEGER, anchor TEXT, title TEXT, text TEXT);
CREATE INDEX sections_file ON sections (file);
CREATE VIRTUAL TABLE sections_fts USING fts5 (
    title, path, text, content='', tokenize="porter unicode61 categories 'L* N* Co M*'");
CREATE TABLE pairs (
    a INTEGER, b INTEGER, weight REAL, commits INTEGER, PRIMARY KEY (a, b)) WITHOUT ROWID;
CREATE INDEX pairs_b ON pairs (b);
CREATE TABLE imports (file INTEGER, candidates TEXT);
CREATE INDEX imports_file ON imports (file);
CREATE TABLE edges (source INTEGER, target INTEGER, PRIMARY KEY (source, target)) WITHOUT ROWID;
CREATE INDEX edges_target ON edges (target);
"""
"""`files.blob` is null for what is only in the history. `pairs` has a < b."""


class Cancelled(Exception):  # noqa: N818 - no error
    """The work was given up between two batches; what was done is kept."""


def connect(path: Path, *, create: bool = False) -> sqlite3.Connection:
    """Open the index in autocommit mode, usable from any one thread at a time."""
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode={'rwc' if create else 'rw'}",
        uri=True,
        timeout=30,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def prepare(path: Path, signature: str) -> sqlite3.Connection:
    """Open the index for writing; one of another version or other settings is begun anew.

    Raises:
        ConfigError: the file is not an index of ours, or cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = connect(path, create=True)
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and application != _APPLICATION_ID:
            connection.close()
            raise ConfigError(f"index: {path} is something else; write another path")
        connection.execute("PRAGMA journal_mode = WAL")
        if not tables or get(connection, "signature") != signature:
            _create(connection, signature)
    except (OSError, sqlite3.DatabaseError) as error:
        raise ConfigError(
            f"index: {path} cannot be used: {error}; remove it, or write another path"
        ) from error
    return connection


def _create(connection: sqlite3.Connection, signature: str) -> None:
    with transaction(connection):
        names = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE '%\\_fts\\_%' "
            "ESCAPE '\\' AND name NOT LIKE 'sqlite%'"
        ).fetchall()
        for (name,) in names:
            connection.execute(f'DROP TABLE "{name}"')
        for statement in _TABLES.split(";")[:-1]:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        put(connection, "signature", signature)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing; readers in other processes go on with what was before."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def get(connection: sqlite3.Connection, key: str) -> str | None:
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return str(row[0]) if row else None


def put(connection: sqlite3.Connection, key: str, value: str) -> None:
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))


@contextmanager
def lock(path: Path, cancelled: Callable[[], bool]) -> Iterator[None]:
    """Be the only one, of all processes and threads, that updates the index at `path`.

    Raises:
        Cancelled: `cancelled` became true while another was at it.
        ConfigError: nothing can be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        locked = path.with_name(f"{path.name}.lock").open("w")
    except OSError as error:
        raise ConfigError(
            f"index: {path} cannot be written: {error.strerror}; write another path"
        ) from error
    with locked as file:
        while not _try_lock(file.fileno()):
            if cancelled():
                raise Cancelled
            time.sleep(_LOCK_POLL_S)
        yield


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
