"""Which file imports which: candidate paths of imports against the files that there are."""

from __future__ import annotations

import json
import posixpath
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Final

__all__ = ["Tree", "rebuild_edges"]

_ROOTS: Final = frozenset(("", "src", "lib"))
"""Folders in which a module of one name (`import utils`) may lie, besides the importer's."""


class Tree:
    """Finds files by the end of their path."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._by_tail: dict[str, list[str]] = {}
        for path in sorted(paths, key=lambda path: (path.count("/"), path)):
            for tail in _tails(path):
                self._by_tail.setdefault(tail, []).append(path)

    def find(self, candidates: Iterable[str], importer: str) -> str | None:
        """The file that an import stands for: of several the one least deep in the tree."""
        home = posixpath.dirname(importer)
        for candidate in candidates:
            ends = self._by_tail.get(_tail(candidate.lstrip("/")), ())
            for path in ends:
                if path != importer and _stands_for(candidate, path, home):
                    return path
        return None


def rebuild_edges(connection: sqlite3.Connection) -> None:
    """Look up every import again: a file that came or went may change what others mean."""
    ids = dict(connection.execute("SELECT path, id FROM files WHERE blob IS NOT NULL"))
    tree = Tree(ids)
    rows = connection.execute(
        "SELECT files.id, files.path, candidates FROM imports JOIN files ON files.id = file"
    )
    found = ((source, tree.find(json.loads(text), path)) for source, path, text in rows)
    edges = {(source, ids[target]) for source, target in found if target is not None}
    connection.execute("DELETE FROM edges")
    connection.executemany("INSERT INTO edges VALUES (?, ?)", edges)


def _tails(path: str) -> Iterator[str]:
    tail = _tail(path)
    yield tail
    if "/" in tail:
        yield posixpath.basename(tail)
    if path.endswith(".go") and not path.endswith("_test.go") and "/" in tail:
        yield f"{posixpath.dirname(tail)}/*.go"


def _tail(path: str) -> str:
    """The last two parts of a path: enough to look it up by, few enough to share."""
    return "/".join(path.split("/")[-2:])


def _stands_for(candidate: str, path: str, home: str) -> bool:
    if candidate.startswith("/"):
        return path == candidate[1:]
    if "*" in candidate:
        return True
    if "/" not in candidate:
        return posixpath.dirname(path) in _ROOTS | {home}
    return path == candidate or path.endswith(f"/{candidate}")
