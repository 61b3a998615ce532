"""What a file says: its sections of prose, and the files that it imports.

One extractor per family of languages, chosen by the file's suffix; each is a function of
(path, text). Files that none of them reads have neither.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Final

from anabranch_git.extract import comments, markup, python
from anabranch_git.extract.section import TRAIL, Extract

__all__ = ["TRAIL", "Extract", "extractor"]

_BY_SUFFIX: Final[dict[str, Callable[[str, str], Extract]]] = {
    **dict.fromkeys((".md", ".markdown", ".mdx"), markup.markdown),
    **dict.fromkeys((".rst",), markup.restructured),
    **dict.fromkeys((".txt", ".adoc"), markup.plain),
    **dict.fromkeys((".py", ".pyi"), python.extract),
    **dict.fromkeys(comments.LANGUAGES, comments.extract),
}
_PROSE_NAMES: Final = frozenset(
    ("readme", "changelog", "changes", "contributing", "authors", "news", "install", "history")
)


def extractor(path: str) -> Callable[[str, str], Extract] | None:
    """The extractor for a file, or None if it is not read at all."""
    name = PurePosixPath(path)
    if not name.suffix and name.name.lower() in _PROSE_NAMES:
        return markup.plain
    return _BY_SUFFIX.get(name.suffix.lower())
