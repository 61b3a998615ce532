"""Depth, told from bytes, is what a decoder would find, whatever stands in strings."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from anabranch.contract.codec import MAX_DEPTH, decode, read_id
from anabranch.contract.events import Query
from anabranch.contract.nesting import is_deeper
from anabranch.errors import DecodeError

MARKS = st.text('[]{}"\\/n:, a\n\x00é\u2028')
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | MARKS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(MARKS, inner, max_size=5),
    max_leaves=40,
)  # fmt: skip


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    return 0


@given(JSON, st.integers(0, 6), st.integers(0, 70), st.booleans())
@example("[" * 100, 0, 0, True)
@example(["]" * 100, [[[["\\"]]]], '"', "\\\\"], 4, 0, True)
def test_depth_is_that_of_the_decoded_value(
    value: Any, limit: int, wrapped: int, ascii_: bool
) -> None:
    for n in range(wrapped):
        value = [value] if n % 2 else {"]": value, '\\"[': [1]}
    text = json.dumps(value, ensure_ascii=ascii_).encode()
    for bound in (limit, limit + wrapped, MAX_DEPTH):
        assert is_deeper(text, bound) == (depth(value) > bound)


@pytest.mark.parametrize("levels", [MAX_DEPTH - 1, MAX_DEPTH, 1_000, 100_000])
@pytest.mark.parametrize("broken", ["", '"', "]", "\\"])
def test_what_is_too_deep_is_refused_whatever_else_is_wrong(levels: int, broken: str) -> None:
    for opened, closed in (("[", "]"), ('{"a":', "}"), ('["]",', "]"), ('["\\"",', "]")):
        deep = f"{opened * levels}1{broken}{closed * levels}"
        value = f'{{"id":"q","type":"t","params":{{"a":{deep}}}}}'.encode()
        if levels + 2 <= MAX_DEPTH and not broken:
            assert decode(value, Query).id == "q"
        else:
            with pytest.raises(DecodeError):
                decode(value, Query)
        assert read_id(value) == "q"


@given(st.lists(st.sampled_from([b"[", b"]", b"{", b"}", b'"', b"\\", b"1", b","]), max_size=300))
def test_what_is_no_json_is_refused_without_harm(parts: list[bytes]) -> None:
    text = b"".join(parts)
    assert isinstance(is_deeper(text, 3), bool)
    try:
        json.loads(text)
    except ValueError:
        with pytest.raises(DecodeError):
            decode(text or b"", Query)
