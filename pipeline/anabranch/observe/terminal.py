"""The edge to a terminal: whatever text comes here, only what we wrote ourselves is obeyed.

Foreign text may hold escape sequences, marks that reorder what is read, and markup; it is shown
as it is written, with what cannot be shown as `\\x1b`. Streams take any text, in any locale.
"""

from __future__ import annotations

import io
import logging
import os
import re
import sys
from collections.abc import Iterable
from typing import Any, Final

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

__all__ = ["LogFormatter", "Screen", "json_for", "take_any_text", "visible"]

_UNSEEN: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Controls but tab and newline, line separators, marks of direction, halves of characters."""
_NOT_ASCII: Final = re.compile(r"[^\x00-\x7f]")
_MIN_WIDTH: Final = 20


def visible(text: str) -> str:
    """Text in which nothing commands a terminal; tabs and newlines stay."""
    return _UNSEEN.sub(_escape, text)


def json_for(encoding: str | None, document: str) -> str:
    """The same JSON document, fit for a terminal and for a stream of that encoding."""
    document = _UNSEEN.sub(_escape_json, document)
    is_unicode = (encoding or "ascii").lower().startswith("utf")
    return document if is_unicode else _NOT_ASCII.sub(_escape_json, document)


def take_any_text() -> None:
    """Let standard output and error show as escapes what their encoding lacks, instead of fail.

    What was closed goes nowhere; a socket that came by its number would be written to.
    """
    while (nowhere := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(nowhere)
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class Screen(Console):
    """A console that shows foreign text, and obeys none of it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)
        if self.width < _MIN_WIDTH:
            self.width = _MIN_WIDTH

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else visible(segment.text)
            yield segment if text is segment.text else Segment(text, segment.style)

    def on_broken_pipe(self) -> None:
        """Whoever called it knows what to do when a reader went away."""
        raise BrokenPipeError


class LogFormatter(logging.Formatter):
    """Log records as lines that nobody can forge: what goes on after a newline is indented."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record)).replace("\n", "\n    ")


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _escape_json(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[n : n + 2].hex()}" for n in range(0, len(units), 2))
