"""Items as all kinds give them: small JSON that a person can read."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from anabranch.events import Item

__all__ = ["commit_uri", "file_uri", "item"]


def item(
    uri: str, score: float, *, title: str, snippet: str, author: str, time: int, **more: Any
) -> Item:
    """An item; `time` is Unix seconds, 0 for unknown."""
    data = {"title": title, "snippet": snippet, "author": author or None, "date": _date(time)}
    return Item(uri, score, {**data, **more})


def _date(time: int) -> str | None:
    try:
        return datetime.fromtimestamp(time, UTC).date().isoformat() if time else None
    except (OverflowError, ValueError, OSError):  # a clock that was wrong by thousands of years
        return None


def commit_uri(repository: str, sha: str) -> str:
    return f"git:{quote(repository)}/commit/{sha}"


def file_uri(repository: str, path: str, anchor: str = "") -> str:
    return f"git:{quote(repository)}/{quote(path)}" + (f"#{quote(anchor)}" if anchor else "")
