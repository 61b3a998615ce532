"""Markdown, reStructuredText and plain text: sections under their headings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Final

from anabranch_git.extract.section import MAX_TITLE_CHARS, TRAIL, Extract, Section, chunks

__all__ = ["markdown", "plain", "restructured"]

_ATX: Final = re.compile(r"^ {0,3}(#{1,6})\s(.*)$")
_FENCE: Final = re.compile(r"^\s*(```|~~~)")
_SETEXT: Final = re.compile(r"^ {0,3}(=+|-+)\s*$")
_RULE: Final = re.compile(r"^([=\-~^\"'`#*+.:_])\1{2,}\s*$")
_TARGET: Final = r"(?:\([^()\n]*(?:\([^()\n]*\)[^()\n]*)?\)|\[[^\[\]\n]*\])"
_IMAGE: Final = re.compile(rf"!\[[^\[\]]*\]{_TARGET}")
_LINK: Final = re.compile(rf"\[([^\[\]]*)\]{_TARGET}")
_TAG: Final = re.compile(r"</?[a-zA-Z][^<>]*>|<!--(?:[^<-]|-(?!->)|<(?!!--))*+-->")
_ROLE: Final = re.compile(r"(?<![\w:+-]):[\w:+-]+:`([^`]*)`")
_RST_LINK: Final = re.compile(r"`([^`<]*)<[^<>`]*>`__?")
_DIRECTIVE: Final = re.compile(r"^[ \t]*\.\. (?:[\w:-]+::.*|_[^:\n]*:.*|$)\n?", re.MULTILINE)
_TEXT: Final = re.compile(r"^ {0,3}[^\s>*|+\-#=]")
_SPACE: Final = re.compile(r"\s")
_NOT_IN_SLUG: Final = re.compile(r"[^\w\s-]")

Heading = tuple[int, str]
"""Level (1 is the highest) and text."""


def markdown(path: str, text: str) -> Extract:
    return Extract(_sections(path, text, _markdown_headings, _plain_markdown))


def restructured(path: str, text: str) -> Extract:
    return Extract(_sections(path, text, _rst_headings, _plain_rst))


def plain(path: str, text: str) -> Extract:
    return Extract(chunks([Section("", PurePosixPath(path).name, text)]))


def _sections(
    path: str,
    text: str,
    headings: Callable[[list[str]], Iterator[tuple[int, int, Heading]]],
    clean: Callable[[str], str],
) -> list[Section]:
    """Text under each heading, with the trail of headings above it as title."""
    lines = text.splitlines()
    trail: list[Heading] = [(0, PurePosixPath(path).name)]
    found: list[Section] = []
    start = 0
    for first, after, (level, title) in headings(lines):
        found.append(_section(trail, clean("\n".join(lines[start:first]))))
        trail = [above for above in trail if above[0] < level] + [
            (level, clean(title).strip()[:MAX_TITLE_CHARS])
        ]
        start = after
    found.append(_section(trail, clean("\n".join(lines[start:]))))
    return chunks(found)


def _section(trail: list[Heading], text: str) -> Section:
    titles = [title for level, title in trail if level] or [trail[0][1]]
    anchor = _slug(titles[-1]) if len(trail) > 1 else ""
    # A heading with nothing under it but further headings has no section of its own.
    return Section(anchor, TRAIL.join(titles), text if text.strip() else "")


def _slug(title: str) -> str:
    """The anchor that GitHub gives a heading."""
    return _SPACE.sub("-", _NOT_IN_SLUG.sub("", title.lower()).strip())


def _markdown_headings(lines: list[str]) -> Iterator[tuple[int, int, Heading]]:
    fence = ""
    for n, line in enumerate(lines):
        if mark := _FENCE.match(line):
            fence = "" if fence == mark[1] else fence or mark[1]
        elif fence:
            continue
        elif atx := _ATX.match(line):
            yield n, n + 1, (len(atx[1]), atx[2].rstrip().rstrip("#").strip())
        elif n and (under := _SETEXT.match(line)) and _can_be_title(lines, n - 1):
            yield n - 1, n + 1, (1 if under[1][0] == "=" else 2, lines[n - 1])


def _can_be_title(lines: list[str], n: int) -> bool:
    """A line of text on its own: no list, quote, table or front matter above a rule."""
    alone = n == 0 or not lines[n - 1].strip()
    return alone and bool(_TEXT.match(lines[n]))


def _rst_headings(lines: list[str]) -> Iterator[tuple[int, int, Heading]]:
    styles: list[tuple[str, bool]] = []
    for n in range(1, len(lines)):
        title, rule = lines[n - 1].rstrip(), lines[n].rstrip()
        if not _RULE.match(rule) or not title.strip() or _RULE.match(title):
            continue
        over = n >= 2 and lines[n - 2].rstrip() == rule
        if len(rule) < len(title) or (title[0].isspace() and not over):
            continue
        style = (rule[0], over)
        if style not in styles:
            styles.append(style)
        yield n - 2 if over else n - 1, n + 1, (styles.index(style) + 1, title.strip())


def _plain_markdown(text: str) -> str:
    """Markdown as a reader sees it: no images' and links' targets, no HTML."""
    return _LINK.sub(r"\1", _IMAGE.sub("", _TAG.sub("", text)))


def _plain_rst(text: str) -> str:
    text = _DIRECTIVE.sub("", text)
    text = _ROLE.sub(r"\1", text)
    return _RST_LINK.sub(lambda link: link[1].rstrip(), text).replace("``", "`")
