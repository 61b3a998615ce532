"""Imports of JavaScript, Go, Java, Rust and C, as the paths that they may stand for."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Final

from anabranch_git.extract.section import MAX_IMPORTS, MAX_PATH_CHARS

__all__ = ["find"]

_JS: Final = re.compile(
    r"""\b(?:from|(?:import|require)\s{0,9}\(?)\s{0,9}["'](\.{1,2}/[^"'\n]{1,300})["']"""
)
_GO: Final = re.compile(
    r'^[ \t]*(?:import[ \t]+)?(?:[\w.]+[ \t]+)?"([\w.-]+(?:/[\w.-]+)+)"[ \t]*$', re.M
)
_JAVA: Final = re.compile(r"^[ \t]*import[ \t]+(?:static[ \t]+)?([\w.]+)", re.M)
_RUST_MOD: Final = re.compile(r"^[ \t]*(?:pub(?:\([^)\n]*\))?[ \t]+)?mod[ \t]+(\w+)[ \t]*;", re.M)
_RUST_USE: Final = re.compile(r"^[ \t]*(?:pub[ \t]+)?use[ \t]+(?:crate|super|self)::([\w:]+)", re.M)
_C: Final = re.compile(r'^[ \t]*#[ \t]*include[ \t]*["<]([^">\n]+)[">]', re.M)
_MAX_PARTS: Final = 10
_JS_ENDINGS: Final = ("", ".ts", ".tsx", ".js", ".jsx", ".mjs", "/index.ts", "/index.js")


def find(path: str, text: str) -> list[list[str]]:
    """Candidates for every import in the text, in `Extract.imports`' form."""
    reader = _READERS.get(PurePosixPath(path).suffix.lower())
    return reader(posixpath.dirname(path), text)[:MAX_IMPORTS] if reader else []


def _javascript(folder: str, text: str) -> list[list[str]]:
    return [[_at(folder, name) + ending for ending in _JS_ENDINGS] for name in _JS.findall(text)]


def _go(folder: str, text: str) -> list[list[str]]:
    """A package is a folder: the file named like it, else any (`*`) of it stands for it."""
    return [
        [f"{end}/{posixpath.basename(name)}.go", f"{end}/*.go"]
        for name in _GO.findall(text)
        for end in ["/".join(name.split("/")[-2:])]
    ]


def _java(folder: str, text: str) -> list[list[str]]:
    names = (name.rstrip(".").replace(".", "/") for name in _JAVA.findall(text))
    return [[f"{name}.java", f"{posixpath.dirname(name)}.java"] for name in names]


def _rust(folder: str, text: str) -> list[list[str]]:
    modules = [
        [_at(folder, f"{name}.rs"), _at(folder, f"{name}/mod.rs")]
        for name in _RUST_MOD.findall(text)
    ]
    for use in _RUST_USE.findall(text):
        parts = use[:MAX_PATH_CHARS].strip(":").split("::")[:_MAX_PARTS]
        ends = ["/".join(parts[:n]) for n in range(len(parts), 0, -1)]
        modules.append(
            [f"src/{end}{ending}" for end in ends for ending in (".rs", "/mod.rs")]
            + [_at(folder, f"{end}.rs") for end in ends]
        )
    return modules


def _c(folder: str, text: str) -> list[list[str]]:
    return [[_at(folder, name), name] for name in _C.findall(text)]


def _at(folder: str, name: str) -> str:
    return "/" + posixpath.normpath(posixpath.join(folder, name))


_READERS: Final[dict[str, Callable[[str, str], list[list[str]]]]] = {
    **dict.fromkeys((".js", ".jsx", ".mjs", ".ts", ".tsx"), _javascript),
    ".go": _go,
    ".java": _java,
    ".rs": _rust,
    **dict.fromkeys((".c", ".h", ".cc", ".cpp", ".hpp"), _c),
}
