"""Full-text search: from a question's words to rows, in the order in which a person wants them.

BM25 decides, as SQLite computes it with a weight per column
(https://www.sqlite.org/fts5.html#the_bm25_function); what lacks one of the words is worth less.
Of two about as good the later one wins.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from anabranch_git.words import pairs, parts, sought

__all__ = ["Hit", "Table", "search"]

_PARTIAL: Final = 0.75
"""What a row that lacks a word is worth, beside one of the same BM25 that has them all."""

_NEAR: Final = 0.5
"""What a row is worth that has pairs of characters of the words, in a script without spaces."""

_CANDIDATES: Final = 50
"""Rows ranked at least, so that a small limit cuts the same order short."""

_JOINT: Final = re.compile(r"[._/-]")
_MAX_PAIRS: Final = 64
_MIN_PREFIX: Final = 3
"""A shorter word is the beginning of too many."""


Row = tuple[Any, ...]


class Table(Struct, frozen=True):
    """What is searched: a full-text table with its columns' weights, and the rows it stands for.

    `columns` begin with an id and the time that breaks ties; `conditions` may use the
    arguments `:since`, `:author` and `:path`, each null if it is not asked for. `worth` is what
    BM25 is multiplied by.
    """

    fts: str
    weights: tuple[float, ...]
    columns: str
    source: str
    conditions: str
    worth: str = "1"

    @property
    def query(self) -> str:
        fit = f"bm25({self.fts}, {', '.join(map(str, self.weights))}) * {self.worth}"
        return (
            f"SELECT {self.columns}, {fit} AS fit FROM {self.fts} JOIN {self.source} "
            f"WHERE {self.fts} MATCH :match AND {self.conditions} ORDER BY fit, 2 DESC LIMIT :limit"
        )


class Hit(Struct, frozen=True):
    """A row of `Table.columns`, how well it fits (0..1), and whether it has all the words."""

    score: float
    row: tuple[Any, ...]
    whole: bool = True


def search(
    connection: sqlite3.Connection,
    table: Table,
    terms: Sequence[str],
    limit: int,
    filters: Mapping[str, object],
) -> list[Hit]:
    """The best `limit` rows that the filters let through, best first."""

    def run(expression: str) -> list[Row]:
        arguments = {**filters, "match": expression, "limit": max(2 * limit, _CANDIDATES)}
        return connection.execute(table.query, arguments).fetchall()

    if not terms:
        return []
    exact = [_phrases(term) for term in terms]
    typing = [*exact[:-1], _phrases(terms[-1], prefix=True)]
    whole = run(" AND ".join(exact)) or run(" AND ".join(typing))
    partial = run(" OR ".join(typing)) if len(terms) > 1 else []
    paired = _pairs(terms)
    near = run(" OR ".join(paired)) if paired else []
    return _merge(whole, partial, near)[:limit]


def _merge(whole: list[Row], partial: list[Row], near: list[Row]) -> list[Hit]:
    """Rows that end in their BM25 (lower is better) as hits, each once, best first."""
    of_words = max((-row[-1] for row in (*whole[:1], *partial[:1])), default=0.0)
    of_pairs = max((-row[-1] for row in near[:1]), default=0.0)
    found: dict[int, Hit] = {}
    lists = ((whole, 1.0, of_words), (partial, _PARTIAL, of_words), (near, _NEAR, of_pairs))
    for rows, share, best in lists:
        for *row, fit in rows:
            score = share * -fit / best if best > 0 else share
            found.setdefault(row[0], Hit(round(score, 2), tuple(row), share == 1.0))
    return sorted(found.values(), key=lambda hit: (-hit.score, -hit.row[1]))


def _phrases(term: str, *, prefix: bool = False) -> str:
    """A word in the forms in which it may be written (`keep-alive`, `keepalive`).

    As a prefix it may go on: the last word of a question may still be typed. Always in quotes,
    so that nothing in it is syntax; terms have no quotes of their own.
    """
    forms = dict.fromkeys((term, " ".join(parts(term)), _JOINT.sub("", term)))
    typed = prefix and len(term) >= _MIN_PREFIX
    found = [(words, alone or typed) for words, alone in map(sought, forms) if words]
    return "(" + " OR ".join(f'"{words}"{"*" * open_}' for words, open_ in found) + ")"


def _pairs(terms: Sequence[str]) -> list[str]:
    found = dict.fromkeys(pair for term in terms for pair in pairs(term))
    return [f'"{pair}"' for pair in found][:_MAX_PAIRS]
