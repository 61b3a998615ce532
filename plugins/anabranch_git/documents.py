"""Files of the head into the index: their paths, their sections, and what they import.

A file is read again only if its content changed (its blob has another name).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable
from fnmatch import fnmatch
from pathlib import PurePosixPath
from typing import Final

from msgspec import Struct

from anabranch_git.edges import rebuild_edges
from anabranch_git.extract import TRAIL, Extract, extractor
from anabranch_git.history import batches
from anabranch_git.repository import File, Repository
from anabranch_git.storage import get, put, transaction
from anabranch_git.words import expand

__all__ = ["Reading", "update_documents"]

Tick = Callable[[str, int, int], None]

_BATCH: Final = 200
_DROP_PATH: Final = """
INSERT INTO files_fts (files_fts, rowid, name, path) VALUES ('delete', ?, ?, ?)
"""
_ADD_PATH: Final = "INSERT INTO files_fts (rowid, name, path) VALUES (?, ?, ?)"
_DROP_TEXT: Final = """
INSERT INTO sections_fts (sections_fts, rowid, title, path, text) VALUES ('delete', ?, ?, ?, ?)
"""
_ADD_TEXT: Final = "INSERT INTO sections_fts (rowid, title, path, text) VALUES (?, ?, ?, ?)"


class Reading(Struct, frozen=True):
    """Which files are read: up to a size, with a path that one of the patterns matches."""

    max_file_bytes: int
    include: tuple[str, ...]

    def wants(self, path: str) -> bool:
        return any(fnmatch(path, pattern) for pattern in self.include)


def update_documents(
    connection: sqlite3.Connection, repository: Repository, reading: Reading, tick: Tick
) -> int:
    """Bring the files up to the repository's head; returns how many were read or dropped."""
    head = repository.head()
    if get(connection, "documents") == str(head):
        return 0
    indexed = dict(connection.execute("SELECT path, blob FROM files WHERE blob IS NOT NULL"))
    changed = []
    for file in repository.files(head) if head else ():
        if reading.wants(file.path) and indexed.pop(file.path, None) != file.blob:
            changed.append(file)
    done, total = 0, len(changed) + len(indexed)
    for gone in batches(indexed, _BATCH):
        with transaction(connection):
            for path in gone:
                _drop(connection, path)
        tick("files", done := done + len(gone), total)
    for batch in batches(changed, _BATCH):
        extracts = [(file, _extract(repository, reading, file)) for file in batch]
        with transaction(connection):
            for file, extract in extracts:
                _drop(connection, file.path)
                _add(connection, file, extract)
        tick("files", done := done + len(batch), total)
    _finish(connection, str(head), total)
    return total


def _extract(repository: Repository, reading: Reading, file: File) -> Extract:
    read = extractor(file.path)
    text = repository.text(file.blob, reading.max_file_bytes) if read else None
    return read(file.path, text) if read and text is not None else Extract()


def _add(connection: sqlite3.Connection, file: File, extract: Extract) -> None:
    execute = connection.execute
    (row,) = execute(
        "INSERT INTO files (path, blob) VALUES (?, ?) "
        "ON CONFLICT (path) DO UPDATE SET blob = excluded.blob RETURNING id",
        (file.path, file.blob),
    ).fetchone()
    execute(_ADD_PATH, (row, *_searchable_path(file.path)))
    for section in extract.sections:
        rowid = execute(
            "INSERT INTO sections (file, anchor, title, text) VALUES (?, ?, ?, ?)",
            (row, section.anchor, section.title, section.text),
        ).lastrowid
        execute(_ADD_TEXT, (rowid, *_searchable_section(section.title, file.path, section.text)))
    connection.executemany(
        "INSERT INTO imports VALUES (?, ?)",
        ((row, json.dumps(candidates)) for candidates in extract.imports),
    )


def _drop(connection: sqlite3.Connection, path: str) -> None:
    """Take a file out of the head; what the history says of it stays."""
    execute = connection.execute
    found = execute("SELECT id FROM files WHERE path = ? AND blob IS NOT NULL", (path,)).fetchone()
    if found is None:
        return
    for rowid, title, text in execute(
        "SELECT id, title, text FROM sections WHERE file = ?", found
    ).fetchall():
        execute(_DROP_TEXT, (rowid, *_searchable_section(title, path, text)))
    execute("DELETE FROM sections WHERE file = ?", found)
    execute("DELETE FROM imports WHERE file = ?", found)
    execute(_DROP_PATH, (*found, *_searchable_path(path)))
    execute("UPDATE files SET blob = NULL WHERE id = ?", found)


def _finish(connection: sqlite3.Connection, head: str, changed: int) -> None:
    with transaction(connection):
        if changed:
            rebuild_edges(connection)
        put(connection, "documents", head)
    if changed > _BATCH:
        connection.execute("INSERT INTO sections_fts (sections_fts) VALUES ('optimize')")


def _searchable_section(title: str, path: str, text: str) -> Iterable[str]:
    """A section's own heading weighs more than those above it, which count as where it is."""
    return map(expand, (title.rsplit(TRAIL, 1)[-1], f"{path} {title}", text))


def _searchable_path(path: str) -> Iterable[str]:
    return map(expand, (PurePosixPath(path).name, path))
