"""What reads foreign text costs in proportion to it, and keeps no more than that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from growth import grows_too_fast
from hypothesis import given
from hypothesis import strategies as st

from anabranch.cli.masking import masked
from anabranch.config.messages import nearest
from anabranch.contract.codec import MAX_DEPTH, read_id
from anabranch.contract.nesting import is_deeper
from anabranch_git.extract import extractor
from anabranch_git.extract.section import MAX_CHARS, MAX_TITLE_CHARS, Section, chunks
from anabranch_git.snippet import snippet
from anabranch_git.words import expand, terms

UNITS = [
    "a", "f0", "aB", "A", "_", " ", "\n", "\n\n", "# a\n", "a\n=\n", "[", "![", "](", "<", "<!--",
    "`", ":a:", ".. ", "//", "/*", "*/", "import ", "import a\n", "from ", "use crate::", "::a",
    "(", "((", "{", "lambda:", "-", "not ", "a.", "a,", "a=", '"', "'", "\\", "def f():\n ",
    '"id"', '"id":',
    "class a:\n", "://a:", "password=", "無効", "ที่",
]  # fmt: skip
FILES = ["a.md", "a.rst", "a.txt", "a.py", "a.js", "a.go", "a.java", "a.rs", "a.c", "a.rb", "a.sql"]
READERS: dict[str, Callable[[str], object]] = {
    "expand": expand,
    "terms": terms,
    "snippet": lambda text: snippet(text, ["aB", "f0", "無効"]),
    "terms of a snippet": lambda text: snippet("a f0 " * 100, [text]),
    "masked": lambda text: masked("key", text, text),
    "id": lambda text: read_id(b"{" + text.encode()),
    "depth": lambda text: is_deeper(text.encode(), MAX_DEPTH),
    "nearest": lambda text: nearest(text, ["semantic", "graph"]),
}


def work(reader: Callable[[str], object], begin: str, unit: str) -> Callable[[int], Any]:
    return lambda size: lambda: reader(f"{begin}{unit * size}\x01")


@pytest.mark.parametrize("name", READERS)
def test_four_times_the_text_costs_four_times_as_much(name: str) -> None:
    for unit in UNITS:
        assert not grows_too_fast(work(READERS[name], "", unit)), unit


@pytest.mark.parametrize("path", FILES)
@pytest.mark.parametrize(
    "begin", ["", "# ", "use crate::a", "from a import ", "import ", "class a:\n "]
)
def test_a_file_costs_in_proportion_to_its_size(path: str, begin: str) -> None:
    read = extractor(path)
    assert read is not None
    for unit in UNITS:
        assert not grows_too_fast(work(lambda text: read(path, text), begin, unit)), unit


@pytest.mark.parametrize("path", FILES)
@pytest.mark.parametrize(
    "text",
    [
        "# " + "a" * 100_000 + "\n\n# b\nc\n" * 10_000,
        "#" + " " + "a" * 100_000 + "\n## b\nc\n" * 10_000,
        "class " + "a" * 100_000 + ":\n" + ' def f(self):\n  "doc"\n' * 5_000,
        "from " + "a" * 100_000 + " import " + "b, " * 50_000 + "b",
        "use crate" + "::a" * 100_000 + ";\n",
        "import " + "a." * 50_000 + "a\n" * 10,
    ],
)
def test_a_file_does_not_grow_as_it_is_read(path: str, text: str) -> None:
    read = extractor(path)
    assert read is not None
    found = read(path, text)
    kept = sum(len(s.anchor) + len(s.title) + len(s.text) for s in found.sections)
    kept += sum(len(each) for names in found.imports for each in names)
    assert kept < 50 * len(text)
    assert all(len(s.title) <= 6 * (MAX_TITLE_CHARS + 3) for s in found.sections)
    assert all(len(s.text) <= 2 * MAX_CHARS for s in found.sections)


@given(st.lists(st.sampled_from(["a", "a-1", "a-2", "b", ""]), max_size=12))
def test_no_two_sections_of_a_file_have_one_anchor(anchors: list[str]) -> None:
    found = chunks(Section(anchor, "title", "text") for anchor in anchors)
    assert len({section.anchor for section in found}) == len(anchors)
