"""The piece of a text that shows why it was found."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from anabranch_git.words import matches, pairs

__all__ = ["snippet"]

_MAX_CHARS: Final = 240
_MAX_WANTED: Final = 32
_WORD: Final = re.compile(r"\w+")


def snippet(text: str, terms: Sequence[str]) -> str:
    """About 240 characters on one line, from where most of the terms are close together."""
    flat = " ".join(text.split())
    if len(flat) <= _MAX_CHARS:
        return flat
    pieces = (piece.lower() for term in terms for piece in _WORD.findall(term))
    wanted = [*dict.fromkeys(pieces)][:_MAX_WANTED]
    hits = [
        (found.start(), term)
        for found in _WORD.finditer(flat)
        for term in wanted
        if matches(term, found[0].lower())
    ]
    paired = {pair for term in terms for pair in pairs(term)}
    hits += [(n, flat[n : n + 2]) for n in range(len(flat)) if flat[n : n + 2] in paired]
    hits.sort(key=lambda hit: hit[0])
    start = _begin(flat, _densest(hits))
    end = flat.rfind(" ", start, start + _MAX_CHARS) if start + _MAX_CHARS < len(flat) else None
    shown = flat[start:end] if end is None or end > start else flat[start : start + _MAX_CHARS]
    return f"{'… ' if start else ''}{shown}{' …' if end is not None else ''}"


def _densest(hits: Sequence[tuple[int, str]]) -> int:
    """Where the window begins that holds the most different terms; the first of those."""
    best, begin, first = 0, 0, 0
    for last, (position, _) in enumerate(hits):
        while position - hits[first][0] > _MAX_CHARS * 3 // 4:
            first += 1
        held = len({term for _, term in hits[first : last + 1]})
        if held > best:
            best, begin = held, hits[first][0]
    return begin


def _begin(flat: str, position: int) -> int:
    """The start of the sentence if it is near, else of a word a little before `position`."""
    if position < _MAX_CHARS // 4:
        return 0
    near = position - _MAX_CHARS // 4
    sentence = max(flat.rfind(end, near, position) for end in (". ", "! ", "? ", ": "))
    if sentence >= 0:
        return sentence + 2
    space = flat.find(" ", near, position)
    return space + 1 if space >= 0 else near
