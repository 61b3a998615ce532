"""Words: how text becomes what is indexed, and a question what is looked up.

SQLite's tokenizer splits at everything that is no letter or digit (so `snake_case` too) and
reduces words to their stem; `camelCase` is split here.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["expand", "matches", "parts", "terms", "vocabulary"]

_WORD: Final = re.compile(r"\w+(?:[./-]\w+)*")
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_PLAIN: Final = re.compile(r"[^\W_]+")
_MAX_TERMS: Final = 24


def vocabulary(text: str) -> frozenset[str]:
    """Words of a text, separated by white space."""
    return frozenset(text.split())


_STOP_WORDS: Final = vocabulary("""
    a about again ago all also am an and any are as at be because been being but by can could did
    do does doing done for from get gets give given go had has have having he her here him his how
    i if in into is it its just know last latest let like list look made make makes many me might
    month months more most much my need no not of off on one only or other our out over own please
    recent recently s same say see set shall she should show so some such t tell than that the
    their them then there these they thing things this those through to today together too under
    up us use used uses using very want was way we week weeks were what when where which while who
    whom whose why will with work works would year years yesterday you your
""")


def expand(text: str) -> str:
    """Text with the pieces of its camelCase words appended: `parseURL` also as `parse URL`."""
    humped = dict.fromkeys(word for word in _PLAIN.findall(text) if _CAMEL.search(word))
    return " ".join([text, *(" ".join(parts(word)) for word in humped)]) if humped else text


def parts(word: str) -> list[str]:
    """The pieces of a camelCase word; a plain word is its only piece."""
    return _CAMEL.split(word)


def terms(text: str, noise: frozenset[str] = frozenset()) -> list[str]:
    """The words of a question that say something, each once, in order.

    Without stop words, and without `noise`: what says nothing to one layer, as `commit` to
    commits. There may be none.
    """
    words = dict.fromkeys(_WORD.findall(text))
    ignored = _STOP_WORDS | noise
    return [w for w in words if w.lower() not in ignored and w.strip("_")][:_MAX_TERMS]


def matches(term: str, word: str) -> bool:
    """Whether `word` is about `term` for a reader: equal but for its ending. Lower case both."""
    stem = term[: max(3, round(len(term) * 0.7))]
    return word.startswith(stem) and len(word) <= len(term) + 4
