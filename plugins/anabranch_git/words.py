"""Words: how text becomes what is indexed, and a question what is looked up.

SQLite's tokenizer splits at everything that is no letter, mark or digit (so `snake_case` too) and
reduces words to their stem; `camelCase` is split here. Where a script puts no spaces between words,
every two characters that follow each other are one (`無効 効化 化` of `無効化`), and what is looked
up are the same in the same order.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

__all__ = ["expand", "matches", "pairs", "parts", "sought", "terms", "vocabulary"]

_MARKS: Final = "".join(
    chr(code) for code in range(0x300, 0x10000) if unicodedata.category(chr(code))[0] == "M"
)
_WORD: Final = re.compile(rf"[\w{_MARKS}]+(?:[./-][\w{_MARKS}]+)*")
_UNSPACED: Final = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf"  # Thai to Tai Tham
    "\u3005-\u3007\u3041-\u30ff\u3105-\u312f\u31a0-\u31ff\uff66-\uff9f"  # kana, bopomofo
    "\u3400-\u4dbf\u4e00-\ua4cf\uf900-\ufaff\U00020000-\U000323af"  # Han, Yi
    "\uac00-\ud7af]+"  # Hangul: spaced, but words have endings of all kinds
)
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
    text = _UNSPACED.sub(lambda run: f" {_pairs(run[0])} ", text)
    humped = dict.fromkeys(word for word in _PLAIN.findall(text) if _CAMEL.search(word))
    return " ".join([text, *(" ".join(parts(word)) for word in humped)]) if humped else text


def sought(term: str) -> tuple[str, bool]:
    """A term as it stands in what `expand` made, and whether it may go on right after.

    Its last character began a pair only if it goes on, so it is left to the pair before it; one
    that is alone is the beginning of any.
    """
    runs = [run for run in _UNSPACED.finditer(term) if run.end() == len(term)]
    words = _UNSPACED.sub(lambda run: f" {_pairs(run[0])} ", term).split()
    if not runs:
        return " ".join(words), False
    alone = len(runs[0][0]) == 1
    return " ".join(words if alone else words[:-1]), alone


def pairs(term: str) -> list[str]:
    """The pairs of a term in a script without spaces, for text that has some of them only."""
    runs = _UNSPACED.findall(term)
    return [pair for run in runs for pair in _pairs(run).split()[: max(1, len(run) - 1)]]


def _pairs(run: str) -> str:
    return " ".join(run[n : n + 2] for n in range(len(run)))


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
