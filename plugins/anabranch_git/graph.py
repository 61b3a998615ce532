"""Graph: files that belong together, because they change together or one imports the other.

The files that a question is about (by name, else by what is written in them) come first, then
their neighbours. How strongly two files change together is the cosine of their histories,
w_ab / sqrt(w_a w_b), shrunk by n / (n + 2) as long as only n commits speak for it. An import
counts 0.5 / (1 + log2 n): what n files import says little about any one of them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from math import log2, sqrt
from typing import Final

from msgspec import Struct

from anabranch import Item
from anabranch_git.item import file_uri, item
from anabranch_git.question import Question
from anabranch_git.search import Hit, Table, search
from anabranch_git.semantic import PATH_CONDITIONS, sections
from anabranch_git.words import terms, vocabulary

__all__ = ["graph"]

_NOISE: Final = vocabulary("""
    belongs change changed changes code connected depend dependencies dependency depends file
    files import imported importing imports module modules relate related
""")
_MAX_SEEDS: Final = 5
_MAX_NEIGHBOURS: Final = 50
_IMPORT_STRENGTH: Final = 0.5
_MAX_TIES_SHOWN: Final = 5
_REVERSE: Final = {
    "changes with": "changes with",
    "imports": "imported by",
    "imported by": "imports",
}

_COLUMNS: Final = "files.id, files.changed, files.path, files.author"
_FILES: Final = Table(
    fts="files_fts",
    weights=(6.0, 2.0),
    columns=_COLUMNS,
    source="files ON files.id = files_fts.rowid",
    conditions=PATH_CONDITIONS,
)
_WRITTEN: Final = sections(_COLUMNS)
_BY_PATH: Final = f"""
SELECT {_COLUMNS} FROM files
WHERE blob IS NOT NULL AND {PATH_CONDITIONS} ORDER BY length(path), path LIMIT :limit
"""
_TOGETHER: Final = f"""
SELECT {_COLUMNS}, pairs.weight, me.weight * files.weight, commits
FROM (SELECT b AS other, weight, commits FROM pairs WHERE a = :file
      UNION ALL SELECT a, weight, commits FROM pairs WHERE b = :file) AS pairs
JOIN files ON files.id = other JOIN files AS me ON me.id = :file
WHERE files.blob IS NOT NULL ORDER BY pairs.weight DESC LIMIT :limit
"""
_IMPORTED: Final = f"""
SELECT {_COLUMNS}, 'imported by', (SELECT count(*) FROM edges WHERE target = files.id)
FROM edges JOIN files ON files.id = target WHERE source = :file
UNION ALL
SELECT {_COLUMNS}, 'imports', (SELECT count(*) FROM edges WHERE target = :file)
FROM edges JOIN files ON files.id = source WHERE target = :file
LIMIT :limit
"""


class _Found(Struct):
    """A file of the answer, with what ties it to others: (relation, path, commits)."""

    path: str
    author: str
    changed: int
    score: float
    ties: list[tuple[str, str, int]]


class _Neighbour(Struct, frozen=True):
    path: str
    author: str
    changed: int
    strength: float
    relation: str
    commits: int


def graph(
    connection: sqlite3.Connection, repository: str, question: Question, limit: int
) -> list[Item]:
    """Files that fit, and the files that belong to them."""
    found: dict[str, _Found] = {}
    for hit in _seeds(connection, question):
        file, changed, path, author = hit.row
        seed = found.setdefault(path, _Found(path, author, changed, 0.0, []))
        seed.score = max(seed.score, hit.score)
        for near in _neighbours(connection, file):
            _tie(found, seed, near, hit.score)
    ranked = sorted(found.values(), key=lambda file: (-file.score, -file.changed, file.path))
    return [_item(repository, file) for file in ranked[:limit]]


def _seeds(connection: sqlite3.Connection, question: Question) -> list[Hit]:
    """The files that a question is about: by name, else by what is written in them."""
    wanted = terms(question.text, _NOISE)
    if not wanted and question.path:
        arguments = {**question.filters, "limit": _MAX_SEEDS}
        return [Hit(1.0, row) for row in connection.execute(_BY_PATH, arguments)]
    named = search(connection, _FILES, wanted, _MAX_SEEDS, question.filters)
    whole = [hit for hit in named if hit.whole]
    if whole:
        return whole
    written = search(connection, _WRITTEN, wanted, _MAX_SEEDS, question.filters)
    return sorted(named + written, key=lambda hit: -hit.score)[:_MAX_SEEDS]


def _neighbours(connection: sqlite3.Connection, file: int) -> Iterator[_Neighbour]:
    arguments = {"file": file, "limit": _MAX_NEIGHBOURS}
    for _, changed, path, author, weight, product, n in connection.execute(_TOGETHER, arguments):
        strength = min(1.0, weight / sqrt(product)) * n / (n + 2) if product > 0 else 0.0
        yield _Neighbour(path, author, changed, strength, "changes with", n)
    for _, changed, path, author, relation, n in connection.execute(_IMPORTED, arguments):
        yield _Neighbour(path, author, changed, _IMPORT_STRENGTH / (1 + log2(n)), relation, 0)


def _tie(found: dict[str, _Found], seed: _Found, near: _Neighbour, score: float) -> None:
    """Note that `near` belongs to `seed`; ties to several files make it likelier (noisy or)."""
    other = found.setdefault(near.path, _Found(near.path, near.author, near.changed, 0.0, []))
    other.score = 1 - (1 - other.score) * (1 - score * near.strength)
    other.ties.append((near.relation, seed.path, near.commits))
    seed.ties.append((_REVERSE[near.relation], near.path, near.commits))


def _item(repository: str, file: _Found) -> Item:
    ties = list(dict.fromkeys(file.ties))[:_MAX_TIES_SHOWN]
    return item(
        file_uri(repository, file.path),
        round(file.score, 3),
        title=file.path,
        snippet="; ".join(map(_told, ties)),
        author=file.author,
        time=file.changed,
        path=file.path,
        ties=[{"relation": r, "path": path, "commits": n} for r, path, n in ties],
    )


def _told(tie: tuple[str, str, int]) -> str:
    relation, path, commits = tie
    return f"{relation} {path}" + (f" ({commits} commits)" if commits else "")
