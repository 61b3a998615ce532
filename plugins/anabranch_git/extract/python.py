"""Python: docstrings of modules, classes and functions, and imports."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from pathlib import PurePosixPath

from anabranch_git.extract import comments
from anabranch_git.extract.section import Extract, Section, chunks

__all__ = ["extract"]

_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def extract(path: str, text: str) -> Extract:
    """Docstrings and imports; of a file that this Python cannot parse, the leading comments."""
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
        imports=list(_imports(tree, module.parent)),
    )


def _docstrings(node: _Documented, title: str, anchor: str) -> Iterator[Section]:
    doc = ast.get_docstring(node)
    if doc:
        yield Section(anchor, title, doc)
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            inner = f"{anchor}.{child.name}" if anchor else child.name
            yield from _docstrings(child, f"{title}.{child.name}", inner)


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
    name = (node.module or "").replace(".", "/")
    if not node.level:
        return name
    parents = [folder, *folder.parents]
    if node.level > len(parents):
        return None
    return "/" + (parents[node.level - 1] / name).as_posix().removeprefix(".")


def _files(stem: str) -> list[str]:
    return [f"{stem}.py", f"{stem}/__init__.py"]
