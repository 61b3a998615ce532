"""Semantic: what is written down: sections of documents, docstrings, leading comments."""

from __future__ import annotations

import sqlite3
from typing import Final

from anabranch import Item
from anabranch_git.item import file_uri, item
from anabranch_git.question import Question
from anabranch_git.search import Hit, Table, search
from anabranch_git.snippet import snippet
from anabranch_git.words import terms, vocabulary

__all__ = ["PATH_CONDITIONS", "sections", "semantic"]

PATH_CONDITIONS: Final = """(:since IS NULL OR files.changed >= :since)
    AND (:author IS NULL OR instr(lower(files.author), lower(:author)))
    AND (:path IS NULL OR instr('/' || files.path, '/' || :path))"""
"""Of a file, time and author are those of the last commit that touched it."""

_NOISE: Final = vocabulary("describe docs documentation documented explain mean")

_WORTH: Final = """CASE
    WHEN instr('/' || files.path, '/test') OR instr(files.path, '_test.') THEN 0.6 ELSE 1 END"""
"""Tests speak of everything, but the answer is rather in what they test."""


def sections(columns: str) -> Table:
    """The sections of the files at the head."""
    return Table(
        fts="sections_fts",
        weights=(6.0, 3.0, 1.0),
        columns=columns,
        source="sections ON sections.id = sections_fts.rowid JOIN files ON files.id = file",
        conditions=PATH_CONDITIONS,
        worth=_WORTH,
    )


_SECTIONS: Final = sections(
    "sections.id, changed, files.path, files.author, anchor, sections.title, sections.text"
)


def semantic(
    connection: sqlite3.Connection, repository: str, question: Question, limit: int
) -> list[Item]:
    """Sections that fit."""
    wanted = terms(question.text, _NOISE) or terms(question.text)
    hits = search(connection, _SECTIONS, wanted, limit, question.filters)
    return [_item(repository, hit, wanted) for hit in hits]


def _item(repository: str, hit: Hit, wanted: list[str]) -> Item:
    _, changed, path, author, anchor, title, text = hit.row
    return item(
        file_uri(repository, path, anchor),
        hit.score,
        title=title,
        snippet=snippet(text, wanted),
        author=author,
        time=changed,
        path=path,
    )
