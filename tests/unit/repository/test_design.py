"""docs/design.md leads to what is there, and leaves no file of the coordinator out."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "pipeline/anabranch"
TEXT = (ROOT / "docs/design.md").read_text(encoding="utf-8")
PLACES = (PACKAGE, ROOT)


def paths(text: str) -> set[str]:
    """What is named as a file or a folder."""
    return set(re.findall(r"`([a-z_0-9]+(?:/[a-z_0-9]+)*(?:\.py|/))`", text))


def defined(path: Path) -> Iterator[str]:
    """Names that a file defines, and those of its classes' members, dotted."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            yield node.name
            for member in node.body:
                if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield f"{node.name}.{member.name}"
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name


def test_every_path_exists() -> None:
    named = paths(TEXT)
    assert len(named) > 60
    assert {it for it in named if not any((place / it).exists() for place in PLACES)} == set()


def test_every_file_of_the_coordinator_is_named_or_its_room_is() -> None:
    named = paths(TEXT)
    files = {
        path.relative_to(PACKAGE)
        for path in (PACKAGE / "coordinator").rglob("*.py")
        if path.name != "__init__.py"
    }
    assert {it for it in files if not named & {str(it), f"{it.parent}/"}} == set()


def test_the_type_of_a_row_is_defined_in_a_file_of_that_row() -> None:
    found = re.findall(r"^\| ([^|]+) \| `([A-Z]\w+)` \|", TEXT, re.M)
    assert len(found) >= 15
    for where, kind in found:
        files = [PACKAGE / path for path in paths(where) if path.endswith(".py")]
        files += [path.parent / "contract.py" for path in files]
        assert any(kind in defined(path) for path in files if path.exists()), kind


def test_every_method_that_is_named_is_there() -> None:
    there = {name for path in PACKAGE.rglob("*.py") for name in defined(path)}
    named = set(re.findall(r"`([A-Z]\w+\.\w+)`", TEXT))
    assert len(named) >= 6
    assert named - there == set()
