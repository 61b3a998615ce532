"""Sections of prose, cut to a size that one answer can show."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from msgspec import Struct

__all__ = [
    "MAX_CHARS",
    "MAX_IMPORTS",
    "MAX_PATH_CHARS",
    "MAX_TITLE_CHARS",
    "TRAIL",
    "Extract",
    "Section",
    "chunks",
]

TRAIL: Final = " › "
"""Between the headings of a title, the highest first."""

_BLANK_LINE: Final = re.compile(r"\n\s*\n")

MAX_CHARS: Final = 1_500
"""Length of a section, about; longer ones are cut between paragraphs."""

MAX_TITLE_CHARS: Final = 300
MAX_IMPORTS: Final = 2_000
MAX_PATH_CHARS: Final = 1_000
"""An import of a longer path is of no file. Titles and imports are written once for each section
and name, so without bounds a file of half a megabyte could become gigabytes."""


class Section(Struct, frozen=True, gc=False):
    """A piece of a file. `anchor` is unique within the file and may be empty."""

    anchor: str
    title: str
    text: str


class Extract(Struct, frozen=True, gc=False):
    """All that was found in a file.

    `imports` has, for every imported name, paths that it may stand for, the likeliest first;
    one that begins with a slash is meant from the root, others as the end of a path.
    """

    sections: list[Section] = []
    imports: list[list[str]] = []


def chunks(parts: Iterable[Section]) -> list[Section]:
    """Sections without the empty ones, long ones cut, and anchors made unique."""
    anchors = _Anchors()
    return [
        Section(anchors.free(part.anchor), part.title[:MAX_TITLE_CHARS], text)
        for part in parts
        for text in _cut(_storable(part.text).strip())
    ]


class _Anchors:
    """Numbers anchors that come again, past those that are written so (`a`, `a`, `a-1`)."""

    def __init__(self) -> None:
        self._next: dict[str, int] = {}

    def free(self, wanted: str) -> str:
        wanted = found = wanted[:MAX_TITLE_CHARS]
        while found in self._next:
            found = f"{wanted}-{self._next[wanted]}"
            self._next[wanted] += 1
        self._next[found] = 1
        return found


def _storable(text: str) -> str:
    """Text that UTF-8 can hold: a string literal may have half of a surrogate pair."""
    return text.encode("utf-8", "replace").decode().replace("\0", "")


def _cut(text: str) -> Iterator[str]:
    """Pieces of about `MAX_CHARS`, between paragraphs if there are any, else anywhere."""
    piece = ""
    for paragraph in _BLANK_LINE.split(text):
        if piece and len(piece) + len(paragraph) > MAX_CHARS:
            yield piece
            piece = ""
        piece = f"{piece}\n\n{paragraph}" if piece else paragraph
        whole = max(0, -(-len(piece) // MAX_CHARS) - 2) * MAX_CHARS
        yield from (piece[n : n + MAX_CHARS] for n in range(0, whole, MAX_CHARS))
        piece = piece[whole:]
    if piece.strip():
        yield piece
