"""What the documents say is there, is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from anabranch.config.settings import Config, LayerConfig, TypeConfig

ROOT = Path(__file__).parents[3]
STATUSES = {"runs", "built", "later"}


def rows(name: str) -> list[list[str]]:
    """Cells of all table rows of a document, headings and rulers apart."""
    lines = (ROOT / "docs" / name).read_text(encoding="utf-8").splitlines()
    table = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines
        if line.startswith("|")
    ]
    return [
        cells
        for cells, following in zip(table, [*table[1:], [""]], strict=True)
        if set(cells[0]) != {"-"} and set(following[0]) != {"-"}
    ]


class TestConfiguration:
    def keys(self, kind: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
        """Dotted keys with their defaults as JSON."""
        for field in msgspec.structs.fields(kind):
            key, default = f"{prefix}{field.name}", field.default
            if isinstance(default, msgspec.Struct):
                yield from self.keys(type(default), f"{key}.")
            elif key == "types":
                yield from self.keys(TypeConfig, "types.<name>.")
            elif key == "layers":
                yield from self.keys(LayerConfig, "layers.<name>.")
            elif key not in ("source", "layers.<name>.settings"):
                yield key, self.shown(field)

    def shown(self, field: Any) -> str:
        if field.required:
            return "required"
        default = field.default
        if default is msgspec.NODEFAULT:
            default = field.default_factory()
        return f"`{msgspec.json.encode(default).decode()}`"

    def test_every_key_stands_in_it_with_its_default_and_nothing_else_does(self) -> None:
        documented = {cells[0].strip("`"): cells[1] for cells in rows("configuration.md")}
        assert documented == dict(self.keys(Config))


class TestOriginal:
    def resolve(self, path: str) -> Path:
        """Where a path of the document is: paths without a root have one by their kind."""
        for root in ("", "pipeline/anabranch", "tests"):
            if (ROOT / root / path).exists():
                return ROOT / root / path
        return ROOT / path

    def test_every_row_has_a_status(self) -> None:
        found = rows("original.md")
        assert len(found) > 60
        assert {cells[-1] for cells in found} == STATUSES

    def test_modules_and_tests_that_are_named_exist(self) -> None:
        named = [
            path
            for cells in rows("original.md")
            for cell in cells[1:-1]
            for path in re.findall(r"`([a-z_/]+/[a-z_0-9]*(?:\.py)?)`", cell)
        ]
        assert len(named) > 60
        assert sorted({path for path in named if not self.resolve(path).exists()}) == []

    def test_whatever_is_there_has_a_test(self) -> None:
        untested = [
            cells[0]
            for cells in rows("original.md")
            if len(cells) == 5 and cells[-1] != "later" and not cells[3]
        ]
        assert untested == []


@pytest.mark.parametrize(
    "document",
    ["README.md", "CHANGELOG.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))],
)
def test_links_within_the_repository_lead_somewhere(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    folder = (ROOT / document).parent
    assert [link for link in links if not (folder / link).exists()] == []
