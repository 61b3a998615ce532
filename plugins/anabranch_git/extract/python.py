"""Python: docstrings of modules, classes and functions, and imports."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import PurePosixPath
from typing import Final

from anabranch_git.extract import comments
from anabranch_git.extract.section import (
    MAX_IMPORTS,
    MAX_PATH_CHARS,
    MAX_TITLE_CHARS,
    Extract,
    Section,
    chunks,
)

__all__ = ["extract"]

_NOT_DOTTED: Final = re.compile(r"[^\w\s.\\]+")
_MAX_DOTS: Final = 1_000
"""The parser is quadratic in the parts of one dotted name (50,000 of them took it seconds)."""

_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def extract(path: str, text: str) -> Extract:
    """Docstrings and imports; of a file that this Python cannot parse, the leading comments."""
    if any(part.count(".") > _MAX_DOTS for part in _NOT_DOTTED.split(text)):
        return comments.extract(path, text)
    try:
        with warnings.catch_warnings():  # of invalid escapes in other people's strings
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return comments.extract(path, text)
    module = PurePosixPath(path)
    name = module.parent.name if module.stem == "__init__" else module.stem
    return Extract(
        sections=chunks(_docstrings(tree, name, "")),
        imports=list(islice(_imports(tree, module.parent), MAX_IMPORTS)),
    )


def _docstrings(node: _Documented, title: str, anchor: str) -> Iterator[Section]:
    doc = ast.get_docstring(node)
    if doc:
        yield Section(anchor, title, doc)
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            inner = f"{anchor}.{child.name}" if anchor else child.name
            yield from _docstrings(
                child, f"{title}.{child.name}"[:MAX_TITLE_CHARS], inner[:MAX_TITLE_CHARS]
            )


def _imports(tree: ast.Module, folder: PurePosixPath) -> Iterator[list[str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield _files(alias.name.replace(".", "/"))
        elif isinstance(node, ast.ImportFrom):
            stem = _stem(node, folder)
            if stem is not None:
                for alias in node.names:
                    inner = f"{stem}/{alias.name}" if stem not in ("", "/") else stem + alias.name
                    yield _files(inner) + (_files(stem) if stem.strip("/") else [])


def _stem(node: ast.ImportFrom, folder: PurePosixPath) -> str | None:
    """The path of the module that is imported from; None above the repository's root."""
    name = (node.module or "")[:MAX_PATH_CHARS].replace(".", "/")
    if not node.level:
        return name
    parents = [folder, *folder.parents]
    if node.level > len(parents):
        return None
    return "/" + (parents[node.level - 1] / name).as_posix().removeprefix(".")


def _files(stem: str) -> list[str]:
    stem = stem[:MAX_PATH_CHARS]
    return [f"{stem}.py", f"{stem}/__init__.py"]
