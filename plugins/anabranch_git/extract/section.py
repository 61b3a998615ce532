"""Sections of prose, cut to a size that one answer can show."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from msgspec import Struct

__all__ = ["MAX_CHARS", "TRAIL", "Extract", "Section", "chunks"]

TRAIL: Final = " › "
"""Between the headings of a title, the highest first."""

MAX_CHARS: Final = 1_500
"""Length of a section, about; longer ones are cut between paragraphs."""


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
    seen: dict[str, int] = {}
    cut: list[Section] = []
    for part in parts:
        for text in _cut(_storable(part.text).strip()):
            n = seen.get(part.anchor, 0)
            seen[part.anchor] = n + 1
            cut.append(Section(f"{part.anchor}-{n}" if n else part.anchor, part.title, text))
    return cut


def _storable(text: str) -> str:
    """Text that UTF-8 can hold: a string literal may have half of a surrogate pair."""
    return text.encode("utf-8", "replace").decode().replace("\0", "")


def _cut(text: str) -> Iterator[str]:
    """Pieces of about `MAX_CHARS`, between paragraphs if there are any, else anywhere."""
    piece = ""
    for paragraph in re.split(r"\n\s*\n", text):
        if piece and len(piece) + len(paragraph) > MAX_CHARS:
            yield piece
            piece = ""
        piece = f"{piece}\n\n{paragraph}" if piece else paragraph
        while len(piece) > 2 * MAX_CHARS:
            yield piece[:MAX_CHARS]
            piece = piece[MAX_CHARS:]
    if piece.strip():
        yield piece
