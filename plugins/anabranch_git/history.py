"""Commits into the index, and from them which files change together.

How much a change counts halves with every two years of its age. Weights are kept relative to a
fixed day instead of now, 2^((time - epoch) / half-life): they never need recomputing as time
passes, and add up in any order.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations, islice
from typing import Any, Final, TypeVar

from anabranch_git.repository import Commit, Repository
from anabranch_git.storage import get, put, transaction
from anabranch_git.words import expand

__all__ = ["MAX_PAIRS", "batches", "update_history"]

T = TypeVar("T")
Tick = Callable[[str, int, int], None]

MAX_PAIRS: Final = 1_000_000
"""Pairs of files that are remembered; the weakest go first."""

_MAX_TOGETHER: Final = 30
"""A commit that touches more files says nothing about any two of them."""
_BATCH: Final = 500
_BROKEN_OFF: Final = ""
"""What stands for the indexed head while it is being indexed."""
_WHOLE: Final = "whole"
_SHALLOW: Final = "shallow"
"""Of a shallow history the oldest commits look as if they had touched nothing."""
_EPOCH: Final = 946_684_800  # 2000-01-01
_HALF_LIFE_S: Final = 2 * 365 * 86_400
_LATEST: Final = 4_102_444_800  # 2100-01-01: later is a wrong clock, and would outweigh all

_ADD_COMMIT: Final = """
INSERT INTO commits (sha, time, author, email, subject, body, paths) VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_GET_COMMITS: Final = "SELECT sha, time, author, email, subject, body, paths, id FROM commits"
_UNREACHABLE: Final = f"{_GET_COMMITS} WHERE sha NOT IN (SELECT sha FROM reachable)"
_ADD_TEXT: Final = """
INSERT INTO commits_fts (rowid, subject, body, author, paths) VALUES (?, ?, ?, ?, ?)
"""
_DROP_TEXT: Final = """
INSERT INTO commits_fts (commits_fts, rowid, subject, body, author, paths)
VALUES ('delete', ?, ?, ?, ?, ?)
"""
_DROP_WEAKEST: Final = """
DELETE FROM pairs WHERE (a, b) IN (SELECT a, b FROM pairs ORDER BY weight LIMIT ?)
"""
_ADD_FILE: Final = """
INSERT INTO files (path, changed, author, weight) VALUES (?, ?, ?, ?)
ON CONFLICT (path) DO UPDATE SET
    author = CASE WHEN (excluded.changed, excluded.author) > (changed, author)
        THEN excluded.author ELSE author END,
    changed = max(changed, excluded.changed), weight = weight + excluded.weight
"""
_ADD_PAIR: Final = """
INSERT INTO pairs (a, b, weight, commits) VALUES (?, ?, ?, ?)
ON CONFLICT (a, b) DO UPDATE SET
    weight = weight + excluded.weight, commits = commits + excluded.commits
"""


def update_history(connection: sqlite3.Connection, repository: Repository, tick: Tick) -> int:
    """Bring the commits up to the repository's head; returns how many were added.

    Only what is new is read if the head moved forward; otherwise (rewritten, deepened, or an
    update that was broken off) all is compared, and what is gone is forgotten.
    """
    head = repository.head()
    state = f"{head or ''} {_SHALLOW if repository.is_shallow else _WHOLE}"
    done = get(connection, "history")
    if done == state:
        return 0
    known = _known(repository, head, done)
    if known is None:
        is_of_use = head and not (done or "").endswith(_SHALLOW)
        _forget(connection, repository.shas(head) if head and is_of_use else ())
    put(connection, "history", _BROKEN_OFF)
    added = read = 0
    if head is not None:
        total = sum(1 for _ in repository.shas(head, known))
        for batch in batches(repository.shas(head, known), _BATCH):
            added += _add(connection, repository, batch)
            read += len(batch)
            tick("commits", read, total)
    _finish(connection, state, added)
    return added


def _known(repository: Repository, head: str | None, done: str | None) -> str | None:
    """The commit whose whole history is indexed already and still part of the head's."""
    if not head or not done:
        return None
    old, depth = done.split(" ")
    is_whole = depth == _WHOLE and not repository.is_shallow
    return old if old and is_whole and repository.is_ancestor(old, head) else None


def _add(connection: sqlite3.Connection, repository: Repository, shas: Iterable[str]) -> int:
    execute = connection.execute
    new = [
        repository.commit(sha)
        for sha in shas
        if execute("SELECT 1 FROM commits WHERE sha = ?", (sha,)).fetchone() is None
    ]
    with transaction(connection):
        for c in new:
            values = (c.sha, c.time, c.author, c.email, c.subject, c.body, _joined(c.paths))
            row = execute(_ADD_COMMIT, values).lastrowid
            execute(_ADD_TEXT, (row, *_searchable(c)))
        _count(connection, new)
    return len(new)


def _searchable(commit: Commit) -> Iterator[str]:
    return map(expand, (commit.subject, commit.body, commit.author, _joined(commit.paths)))


def _count(connection: sqlite3.Connection, commits: Iterable[Commit]) -> None:
    """Add up what these commits say about files and pairs of files."""
    telling = [commit for commit in commits if len(commit.paths) <= _MAX_TOGETHER]
    connection.executemany(
        _ADD_FILE, ((path, c.time, c.author, _weight(c.time)) for c in telling for path in c.paths)
    )
    together: dict[tuple[int, int], tuple[float, int]] = {}
    for commit in telling:
        for pair in combinations(sorted(_ids(connection, commit.paths)), 2):
            weight, count = together.get(pair, (0.0, 0))
            together[pair] = (weight + _weight(commit.time), count + 1)
    connection.executemany(_ADD_PAIR, ((*pair, *sums) for pair, sums in together.items()))


def _ids(connection: sqlite3.Connection, paths: Iterable[str]) -> Iterator[int]:
    for path in paths:
        (found,) = connection.execute("SELECT id FROM files WHERE path = ?", (path,)).fetchone()
        yield found


def _weight(time: int) -> float:
    return float(2.0 ** ((min(max(time, 0), _LATEST) - _EPOCH) / _HALF_LIFE_S))


def _forget(connection: sqlite3.Connection, reachable: Iterable[str]) -> None:
    """Drop commits that are not reachable any more, and count the others again."""
    execute = connection.execute
    if execute("SELECT 1 FROM commits").fetchone() is None:
        return
    with transaction(connection):
        execute("CREATE TEMP TABLE reachable (sha TEXT PRIMARY KEY) WITHOUT ROWID")
        connection.executemany("INSERT INTO reachable VALUES (?)", ((sha,) for sha in reachable))
        for *fields, row in execute(_UNREACHABLE):
            execute(_DROP_TEXT, (row, *_searchable(_commit(fields))))
        execute("DELETE FROM commits WHERE sha NOT IN (SELECT sha FROM reachable)")
        execute("DROP TABLE reachable")
        execute("DELETE FROM pairs")
        execute("UPDATE files SET changed = 0, author = '', weight = 0")
        for batch in batches(execute(_GET_COMMITS), _BATCH):
            _count(connection, (_commit(row) for row in batch))


def _commit(row: Sequence[Any]) -> Commit:
    sha, time, author, email, subject, body, joined = row[:7]
    return Commit(sha, time, author, email, subject, body, _split(joined))


def _finish(connection: sqlite3.Connection, state: str, added: int) -> None:
    (pairs,) = connection.execute("SELECT count(*) FROM pairs").fetchone()
    with transaction(connection):
        if pairs > MAX_PAIRS:
            connection.execute(_DROP_WEAKEST, (pairs - MAX_PAIRS,))
        put(connection, "history", state)
    if added > _BATCH:
        connection.execute("INSERT INTO commits_fts (commits_fts) VALUES ('optimize')")


def _joined(paths: Iterable[str]) -> str:
    """Paths as one text in which every one, and every part of one, begins after a slash."""
    return "".join(f"/{path}\n" for path in paths)


def _split(joined: str) -> tuple[str, ...]:
    return tuple(line[1:] for line in joined.split("\n")[:-1])


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Consecutive lists of at most `size`."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
