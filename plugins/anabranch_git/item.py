"""Items as all kinds give them: small JSON that a person can read."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from anabranch import Item
from anabranch_git.repository import as_bytes

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
    """Args:
    repository: its `identity`.
    """
    return f"git:{repository}/commit/{sha}"


def file_uri(repository: str, path: str, anchor: str = "") -> str:
    """No other repository, file, section or commit has it: the second colon ends the repository.

    Args:
        repository: its `identity`.
        path: as `repository.as_text` writes it.
    """
    return f"git:{repository}:{quote(as_bytes(path))}" + (f"#{quote(anchor)}" if anchor else "")
