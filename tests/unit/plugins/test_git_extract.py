"""What `anabranch_git` reads out of files."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anabranch_git.edges import Tree
from anabranch_git.extract import extractor
from anabranch_git.extract.section import MAX_CHARS
from anabranch_git.snippet import snippet
from anabranch_git.words import expand, terms


def sections(path: str, text: str) -> list[tuple[str, str, str]]:
    read = extractor(path)
    assert read is not None
    return [(s.anchor, s.title, s.text) for s in read(path, text).sections]


def imported(path: str, text: str, tree: list[str]) -> list[str | None]:
    read = extractor(path)
    assert read is not None
    return [Tree([path, *tree]).find(names, path) for names in read(path, text).imports]


def test_markdown_is_cut_at_headings_with_their_trail() -> None:
    text = "Intro\n\n# One\n\na\n\n## Two!\n\nb\n\n# Three\n## Four\nc\n"
    assert sections("x.md", text) == [
        ("", "x.md", "Intro"),
        ("one", "One", "a"),
        ("two", "One › Two!", "b"),
        ("four", "Three › Four", "c"),
    ]


def test_markdown_headings_in_code_are_no_headings() -> None:
    assert [s[1] for s in sections("x.md", "# A\n\n```sh\n# not B\n```\n\n# C\n\nc\n")] == [
        "A",
        "C",
    ]


def test_markdown_underlined_headings_count_and_tables_and_rules_do_not() -> None:
    text = "Title\n=====\n\na\n\n---\n\nb\n\nPart\n----\n\nc\n"
    assert [s[1] for s in sections("x.md", text)] == ["Title", "Title › Part"]


def test_markdown_shows_what_a_reader_sees() -> None:
    ((_, _, text),) = sections("x.md", '<p align="left">\n![badge](u)[Docs](http://d) **b**</p>')
    assert text == "Docs **b**"


def test_equal_headings_get_distinct_anchors() -> None:
    anchors = [s[0] for s in sections("x.md", "# A\n\n## Fixed\n\n1\n\n# B\n\n## Fixed\n\n2\n")]
    assert anchors == ["fixed", "fixed-1"]


def test_long_sections_are_cut_between_paragraphs() -> None:
    paragraphs = [f"paragraph {n} " + "word " * 100 for n in range(12)]
    cut = sections("x.md", "# T\n\n" + "\n\n".join(paragraphs))
    assert len(cut) > 2
    assert all(len(text) <= MAX_CHARS for _, _, text in cut)
    assert all(text.startswith("paragraph") for _, _, text in cut)
    assert len({anchor for anchor, _, _ in cut}) == len(cut)


def test_restructured_headings_rank_by_first_use() -> None:
    text = """
=====
Title
=====

Intro with :class:`Client` and `a link <https://example.org>`_.

Part
----

.. note:: hidden

Text.

Deeper
~~~~~~

More.
"""
    assert sections("x.rst", text) == [
        ("title", "Title", "Intro with Client and a link."),
        ("part", "Title › Part", "Text."),
        ("deeper", "Title › Part › Deeper", "More."),
    ]


def test_python_docstrings_carry_their_qualified_name() -> None:
    text = '"M."\nclass A:\n    "C."\n    async def b(self):\n        "F."\n    def c(self): ...'
    assert sections("pkg/m.py", text) == [
        ("", "m", "M."),
        ("A", "m.A", "C."),
        ("A.b", "m.A.b", "F."),
    ]
    assert sections("pkg/__init__.py", '"""P."""')[0][1] == "pkg"


def test_python_that_does_not_parse_still_has_comments() -> None:
    text = "# Prints a line of greeting\nprint 'hello'\n"
    assert sections("old.py", text) == [
        ("L1", "old.py: print 'hello'", "Prints a line of greeting")
    ]


def test_a_docstring_with_half_a_surrogate_pair_can_be_stored() -> None:
    ((_, _, text),) = sections("m.py", '"""a \\ud800 b"""')
    assert text == "a ? b"


def test_comments_lead_the_declaration_that_follows() -> None:
    text = """// Copyright 2020 Somebody, all rights reserved to them
package pool

// Dial opens a connection
// and keeps it in the pool.
func Dial(addr string) {
\tx := 1 // short
}

/*
 * Close gives the connection back.
 */
func Close() {}
"""
    assert sections("pool.go", text) == [
        (
            "L4",
            "pool.go: func Dial(addr string)",
            "Dial opens a connection\nand keeps it in the pool.",
        ),
        ("L10", "pool.go: func Close() {}", "Close gives the connection back."),
    ]


def test_files_of_no_known_kind_are_not_read() -> None:
    assert extractor("photo.png") is None
    assert extractor("README") is not None


@pytest.mark.parametrize("path", ["x.md", "x.rst", "x.txt", "x.py", "x.go", "x.sh", "x.c", "x.rs"])
@settings(max_examples=60)
@given(text=st.text(max_size=300))
def test_no_text_is_too_odd(path: str, text: str) -> None:
    for _, _, found in sections(path, text):
        found.encode()


PYTHON = ["src/shop/__init__.py", "src/shop/pool.py", "src/shop/net/wire.py", "utils.py"]


@pytest.mark.parametrize(
    ("path", "text", "tree", "wanted"),
    [
        ("src/shop/client.py", "import shop.pool", PYTHON, ["src/shop/pool.py"]),
        ("src/shop/client.py", "from shop import pool", PYTHON, ["src/shop/pool.py"]),
        ("src/shop/client.py", "from shop.pool import Pool", PYTHON, ["src/shop/pool.py"]),
        ("src/shop/client.py", "from . import pool", PYTHON, ["src/shop/pool.py"]),
        ("src/shop/client.py", "from .net.wire import x", PYTHON, ["src/shop/net/wire.py"]),
        ("src/shop/net/a.py", "from .. import pool", PYTHON, ["src/shop/pool.py"]),
        ("src/shop/client.py", "import utils", PYTHON, ["utils.py"]),
        ("a.py", "import json, os.path", ["x/y/json.py", "z/os/other.py"], [None, None]),
        ("a.py", "from .... import b", ["b.py"], []),
        ("web/a.ts", "import x from './b'", ["web/b.ts"], ["web/b.ts"]),
        ("web/a.js", "const x = require('../c')", ["c/index.js"], ["c/index.js"]),
        ("web/a.js", "import 'react'", ["react.js"], []),
        (
            "a/m.go",
            'import "example.org/x/pool"',
            ["x/pool/z.go", "x/pool/pool.go"],
            ["x/pool/pool.go"],
        ),
        (
            "a/m.go",
            '\t"example.org/x/pool"',
            ["x/pool/a_test.go", "x/pool/dial.go"],
            ["x/pool/dial.go"],
        ),
        ("A.java", "import org.shop.Pool;", ["src/org/shop/Pool.java"], ["src/org/shop/Pool.java"]),
        ("src/main.rs", "mod pool;", ["src/pool/mod.rs"], ["src/pool/mod.rs"]),
        ("src/main.rs", "use crate::net::wire::Frame;", ["src/net/wire.rs"], ["src/net/wire.rs"]),
        ("src/a.c", '#include "pool.h"', ["src/pool.h", "pool.h"], ["src/pool.h"]),
        ("src/a.c", "#include <shop/pool.h>", ["include/shop/pool.h"], ["include/shop/pool.h"]),
    ],
)
def test_imports_find_the_file_that_they_stand_for(
    path: str, text: str, tree: list[str], wanted: list[str | None]
) -> None:
    assert imported(path, text, tree) == wanted


def test_camel_case_is_indexed_whole_and_in_pieces() -> None:
    assert expand("an HTTPTransport of parseURL") == (
        "an HTTPTransport of parseURL HTTP Transport parse URL"
    )
    assert expand("nothing to split") == "nothing to split"


def test_a_questions_filler_is_left_out() -> None:
    assert terms("How do I set the connect_timeout of HTTP/2 in httpx.Client?") == [
        "connect_timeout",
        "HTTP/2",
        "httpx.Client",
    ]
    assert terms("what is it about", frozenset()) == []


def test_a_snippet_begins_where_the_words_are() -> None:
    text = "Filler goes on. " * 40 + "Here is the needle in its haystack. " + "More filler. " * 40
    shown = snippet(text, ["needle", "haystack"])
    assert "needle in its haystack" in shown
    assert shown.startswith("… ")
    assert len(shown) <= 250


def test_a_short_text_is_its_own_snippet() -> None:
    assert snippet("One\n  line.", ["line"]) == "One line."


@given(text=st.text(max_size=1_000), wanted=st.lists(st.text(min_size=1, max_size=8), max_size=4))
def test_a_snippet_is_short_and_of_the_text(text: str, wanted: list[str]) -> None:
    shown = snippet(text, wanted).removeprefix("… ").removesuffix(" …")
    assert len(shown) <= 240
    assert shown in " ".join(text.split())
