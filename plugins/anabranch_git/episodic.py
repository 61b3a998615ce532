"""Episodic: who did what, and when: the commits."""

from __future__ import annotations

import sqlite3
from typing import Any, Final

from anabranch import Item
from anabranch_git.item import commit_uri, item
from anabranch_git.question import Question
from anabranch_git.search import Hit, Table, search
from anabranch_git.snippet import snippet
from anabranch_git.words import terms, vocabulary

__all__ = ["episodic"]

_NOISE: Final = vocabulary("""
    change changed changes commit commits committed happen happened history
""")
"""Words that say nothing about one commit rather than another."""

_MAX_PATHS_SHOWN: Final = 5
_COLUMNS: Final = "id, time, sha, commits.author, commits.subject, commits.body, commits.paths"
_CONDITIONS: Final = """(:since IS NULL OR time >= :since)
    AND (:author IS NULL OR instr(lower(commits.author || ' ' || email), lower(:author)))
    AND (:path IS NULL OR instr(commits.paths, '/' || :path))"""

_COMMITS: Final = Table(
    fts="commits_fts",
    weights=(8.0, 2.0, 3.0, 1.0),
    columns=_COLUMNS,
    source="commits ON commits.id = commits_fts.rowid",
    conditions=_CONDITIONS,
)
_LATEST: Final = f"""
SELECT {_COLUMNS} FROM commits WHERE {_CONDITIONS} ORDER BY time DESC LIMIT :limit
"""


def episodic(
    connection: sqlite3.Connection, repository: str, question: Question, limit: int
) -> list[Item]:
    """Commits that fit; the latest ones for a question like "what changed last week"."""
    wanted = terms(question.text, _NOISE)
    hits = (
        search(connection, _COMMITS, wanted, limit, question.filters)
        if wanted
        else _latest(connection, question, limit)
    )
    return [_item(repository, hit, wanted) for hit in hits]


def _latest(connection: sqlite3.Connection, question: Question, limit: int) -> list[Hit]:
    rows = connection.execute(_LATEST, {**question.filters, "limit": limit}).fetchall()
    return [Hit(1 / (1 + n / 10), row) for n, row in enumerate(rows)]


def _item(repository: str, hit: Hit, wanted: list[str]) -> Item:
    _, time, sha, author, subject, body, joined = hit.row
    paths: list[Any] = [line[1:] for line in joined.split("\n")[:-1]]
    return item(
        commit_uri(repository, sha),
        hit.score,
        title=subject,
        snippet=snippet(body, wanted),
        author=author,
        time=time,
        paths=paths[:_MAX_PATHS_SHOWN],
    )
