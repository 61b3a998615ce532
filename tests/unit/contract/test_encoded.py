"""Partials whose data is not decoded are taken and refused exactly as if it had been."""

from __future__ import annotations

import json
import random
import sys
from typing import Any

import msgspec
import pytest
from extreme_events import extreme_event
from hypothesis import example, given
from hypothesis import strategies as st

from anabranch.contract.codec import decode, decode_partial, encode
from anabranch.contract.encoded import is_nothing
from anabranch.contract.events import Item, Partial, PartialResult
from anabranch.errors import DecodeError

DATA = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)
DIGITS = "9" * 4_301
ODD = [
    "1e999", "-1E999", "1e+308", "2e308", "-2.5e0308", "1e-999", "0e999", "1" + "0" * 308,
    "1" + "0" * 309, "0." + "3" * 400, "1" + "0" * 309 + ".5", "1" + "0" * 400 + "e-200",
    "9" * 299 + "e10", "9" * 210 + "e99", "9" * 250 + "E+60", "9" * 299 + ".5e9",
    DIGITS, DIGITS[1:], f"-{DIGITS}", f'"{DIGITS}e9999"', "NaN", "Infinity", "01", "1.", ".5",
    "[1,2,3e12,45678]", '["1","e","999"]', r'"\ud800"', r'"\ud83d\ude00"', r'"\ude00"', r'"\x"',
    '"\x01"', '"é無"', "tru", "null", " null ", "", "[1,]", "{1:2}", '{"a":1,"a":2}', "[" * 60,
    "[" * 55 + "]" * 55, "[" * 70 + "]" * 70, '{"a":1}}', '"', "\\", "/*c*/1", "1 2",
]  # fmt: skip
NOT_UTF8 = [
    b'"\xff"',
    b'"\xc0\x80"',
    b'"\xed\xa0\x80"',
    b'{"\xff":1}',
    b'"\xf4\x90\x80\x80"',
    b'"\xc3',
]


def partial_of(*data: bytes) -> bytes:
    items = b",".join(b'{"id":"urn:a","score":0.5,"data":%b}' % each for each in data)
    return (
        b'{"query":"q","offset":1,"type":"t","scope":"","limit":9,"key":"k","generation":0,'
        b'"worker":"w","results":[{"layer":"a","items":[%b]}]}' % items
    )


def plain(partial: Partial) -> Any:
    return msgspec.json.decode(encode(partial))


def same(value: bytes) -> bool:
    """Both ways of decoding it; whether it can be."""
    try:
        expected = decode(value, Partial)
    except DecodeError:
        with pytest.raises(DecodeError):
            decode_partial(value)
        return False
    assert plain(decode_partial(value)) == plain(expected)
    return True


@pytest.mark.parametrize("data", [*(odd.encode() for odd in ODD), *NOT_UTF8])
def test_odd_data_is_taken_and_refused_as_if_it_had_been_decoded(data: bytes) -> None:
    same(partial_of(data))
    same(partial_of(b"1", b"[%b,2]" % data, b'{"a":%b}' % data))
    same(partial_of(b"1").replace(b'"layer"', b'"unknown":%b,"layer"' % data))


def test_of_the_odd_ones_some_are_taken() -> None:
    taken = [odd for odd in ODD if same(partial_of(odd.encode()))]
    assert {"1e+308", "0e999", DIGITS[1:], '"é無"', f'"{DIGITS}e9999"'} < set(taken)
    assert not {"1e999", "-2.5e0308", DIGITS, r'"\ud800"', "NaN", "[1,]"} & set(taken)


@given(st.lists(DATA, min_size=1, max_size=4), st.booleans())
@example([5e-324, 1.7976931348623157e308, 10**400], True)
@example(["e" * 400, "0e000", "0" * 400], False)
def test_whatever_is_json_is_handed_on_as_it_came(data: list[Any], ascii_: bool) -> None:
    written = [json.dumps(each, ensure_ascii=ascii_, indent=1).encode("utf-8", "surrogatepass")
               for each in data]  # fmt: skip
    same(partial_of(*written))


@pytest.mark.parametrize("seed", range(300))
def test_extreme_partials_are_taken_and_refused_alike(seed: int) -> None:
    same(extreme_event(random.Random(seed), Partial, {}))


def test_data_keeps_nothing_but_itself() -> None:
    value = partial_of(b'{"a":1}', b"2") + b" " * 1_000
    held = sys.getrefcount(value)
    partial = decode_partial(value)
    assert sys.getrefcount(value) == held
    assert [bytes(item.data) for item in partial.results[0].items] == [b'{"a":1}', b"2"]


def test_no_data_is_null_whichever_way_it_is_written() -> None:
    for value in (
        partial_of(b"null"),
        partial_of(b" null "),
        partial_of(b"1").replace(b',"data":1', b""),
    ):
        (item,) = decode_partial(value).results[0].items
        assert is_nothing(item.data)
        assert msgspec.json.decode(encode(item))["data"] is None
    (other,) = decode_partial(partial_of(b'"null"')).results[0].items
    assert not is_nothing(other.data)
    assert is_nothing(None)
    assert not is_nothing("null")


def test_ours_is_read_as_it_was_written() -> None:
    items = [Item("urn:a", 1.0, {"text": "é"}), Item("urn:b", 0.5)]
    partial = Partial("q", 1, "t", "", 9, "k", 0, "w", [PartialResult("a", items=items)])
    assert same(encode(partial))
