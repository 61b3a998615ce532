"""Other languages: the comments that lead a file or a declaration, and imports."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Final

from anabranch_git.extract import imports
from anabranch_git.extract.section import Extract, Section, chunks

__all__ = ["LANGUAGES", "extract"]

_SLASHES: Final = re.compile(r"^\s*//[/!]?(.*)$")
_HASHES: Final = re.compile(r"^\s*#(?!!)(.*)$")
_DASHES: Final = re.compile(r"^\s*--(.*)$")

LANGUAGES: Final[dict[str, re.Pattern[str]]] = {
    f".{suffix}": line_comment
    for line_comment, suffixes in {
        _SLASHES: "c h cc cpp hpp cs go java js jsx kt mjs php proto rs scala swift ts tsx",
        _HASHES: "rb sh bash pl ex exs jl r",
        _DASHES: "sql lua hs",
    }.items()
    for suffix in suffixes.split()
}
"""Suffixes that are read, and what a line of comment looks like; blocks are /* ... */ in all."""

_LICENSE: Final = re.compile(r"copyright|licen[sc]e|SPDX|all rights reserved", re.IGNORECASE)
_MIN_WORDS: Final = 4
_MAX_TITLE: Final = 100


def extract(path: str, text: str) -> Extract:
    name = PurePosixPath(path)
    line_comment = LANGUAGES.get(name.suffix.lower(), _HASHES)
    found = [
        Section(f"L{line}", f"{name.name}: {title}" if title else name.name, body)
        for line, body, title in _blocks(text.splitlines(), line_comment)
        if len(body.split()) >= _MIN_WORDS and not _LICENSE.search(body)
    ]
    return Extract(sections=chunks(found), imports=imports.find(path, text))


def _blocks(lines: list[str], line_comment: re.Pattern[str]) -> Iterator[tuple[int, str, str]]:
    """Runs of comment: line number (from 1), text, and the line of code that follows."""
    body: list[str] = []
    start, in_block = 0, False
    for n, line in enumerate([*lines, ""], start=1):
        comment, in_block = _comment(line, in_block, line_comment)
        if comment is not None:
            start = start if body else n
            body.append(comment)
        elif body:
            yield start, "\n".join(body).strip(), line.strip().rstrip("{ ")[:_MAX_TITLE]
            body = []


def _comment(line: str, in_block: bool, line_comment: re.Pattern[str]) -> tuple[str | None, bool]:
    """A line's comment if it is nothing else, and whether a block goes on after it."""
    stripped = line.strip()
    if in_block or stripped.startswith("/*"):
        ends = "*/" in stripped
        return stripped.removeprefix("/*").split("*/")[0].lstrip("*! ").rstrip(), not ends
    match = line_comment.match(line)
    return (match[1].strip() if match else None), False
