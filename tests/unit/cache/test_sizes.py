"""The account of the cache against what is really allocated, for entries of every kind."""

from __future__ import annotations

import gc
import random
import tracemalloc
from collections.abc import Callable
from sys import getsizeof
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from anabranch.cache.cross_layer_cache import CrossLayerCache
from anabranch.cache.invalidation import Invalidations
from anabranch.cache.keys import make_key
from anabranch.cache.sizes import items_bytes
from anabranch.cache.slots import Slot
from anabranch.contract.codec import decode, encode
from anabranch.contract.events import Item, PartialResult, Query

COUNT = 100
LAYERS = ("a", "b", "c")


def text(rng: random.Random, most: int) -> str:
    words = ["the", "quick,", "brown", "fox:", "naïve", '"q"', "{code}", "[1,2]", "\n"]
    return " ".join(rng.choices(words, k=rng.randint(1, most)))


DATA: dict[str, Callable[[random.Random], Any]] = {
    "nothing": lambda rng: None,
    "text": lambda rng: text(rng, 60),
    "japanese": lambda rng: "無効化" * rng.randint(1, 60),
    "fields": lambda rng: {f"field{n}": text(rng, 8) for n in range(rng.randint(0, 12))},
    "numbers": lambda rng: [rng.random() for _ in range(rng.randint(0, 80))],
    "counts": lambda rng: {"n": rng.randint(300, 10**12), "on": True},
    "deep": lambda rng: {"a": [{"b": {"c": [n]}} for n in range(rng.randint(0, 9))]},
    "empty": lambda rng: [[] for _ in range(rng.randint(0, 60))],
    "much": lambda rng: [text(rng, 60) for _ in range(rng.randint(20, 60))],
    "vector": lambda rng: {"v": [rng.random() for _ in range(768)], "t": text(rng, 30)},
    "emoji": lambda rng: "x" * rng.randint(9_000, 20_000) + "\N{GRINNING FACE}",
    "table": lambda rng: ",".join(["12"] * rng.randint(5_000, 9_000)),
    "code": lambda rng: 'f({"a":[1,2]},"b");' * rng.randint(500, 900),
    "records": lambda rng: [{"n": n, "s": str(n)} for n in range(rng.randint(100, 300))],
}

LARGE = ("much", "vector", "emoji", "table", "code", "records")


def fill(cache: CrossLayerCache, n: int, rng: random.Random, kind: str, entry: str) -> None:
    """As it comes from the wire: nothing of an entry is shared with another."""
    params = {"text": f"question {n} {text(rng, 200 if entry == 'long' else 3)}"}
    query = decode(encode(Query(f"q{n}", "t", params, scope=f"s{n % 7}")), Query)
    key = make_key("t", query.scope, query.params)
    for layer in LAYERS[: rng.randint(1, 3)]:
        items = [
            Item(f"urn:{n}:{i}", rng.random(), DATA[kind](rng)) for i in range(rng.randint(0, 5))
        ]
        tags = [f"tag {rng.random()}" for _ in range(30 if entry == "tagged" else n % 2)]
        result = decode(encode(PartialResult(layer, items=items, tags=tags)), PartialResult)
        slot = Slot(
            result.items, False, 20, 1e12 + n, 300_000, 5_000 + n, tuple(result.tags), 10.5 + n
        )
        cache.store(key, layer, slot, 1e12)
    if entry == "asked":
        found = cache.probe(key, ("a",), limit=20, max_age_ms=None, now_ms=1e12 + n)
        memo = bytes(rng.randint(1, 900))
        cache.remember(key, ("a",), 20, found.hits, memo, getsizeof(memo))


@pytest.mark.parametrize(
    ("kind", "entry"),
    [*((kind, "plain") for kind in DATA), *(("counts", e) for e in ("long", "tagged", "asked"))],
)
def test_what_is_counted_is_what_is_taken(kind: str, entry: str) -> None:
    fill(CrossLayerCache(), 0, random.Random(0), kind, entry)  # whatever is made once
    rng = random.Random(1)
    cache = CrossLayerCache()
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    count = COUNT if kind not in LARGE else COUNT // 4
    for n in range(count):
        fill(cache, n, rng, kind, entry)
    gc.collect()
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert len(cache) == count
    assert 0.7 * taken < cache.size_bytes < 1.3 * taken


class Undecoded(Item, frozen=True, gc=False):
    """As a coordinator reads it."""

    data: Raw = Raw(b"null")


@pytest.mark.parametrize("kind", DATA)
@pytest.mark.parametrize("most", [1, 20])
def test_data_that_was_not_decoded_is_counted_as_its_json(kind: str, most: int) -> None:
    rng = random.Random(4)
    decoder = msgspec.json.Decoder(list[Undecoded])
    values = [
        encode([Item(f"urn:{n}:{i}", rng.random(), DATA[kind](rng)) for i in range(most)])
        for n in range(COUNT // most)
    ]
    gc.collect()
    tracemalloc.start()
    decoded = [decoder.decode(value) for value in values]
    found = [[Undecoded(it.id, it.score, it.data.copy()) for it in items] for items in decoded]
    del decoded
    gc.collect()
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert 0.8 * taken < sum(map(items_bytes, found)) < 1.2 * taken


def test_items_of_both_kinds_are_counted_too() -> None:
    mixed = [Undecoded("urn:a", 1.0, Raw(b'"x"')), Item("urn:b", 1.0, "x" * 1_000)]
    assert items_bytes(mixed) > 1_000


@pytest.mark.parametrize("entry", ["long", "tagged"])
def test_the_bound_holds_whatever_an_entry_is_made_of(entry: str) -> None:
    rng = random.Random(2)
    cache = CrossLayerCache(max_entries=100_000, max_bytes=200_000)
    for n in range(2 * COUNT):
        fill(cache, n, rng, "nothing", entry)
        assert cache.size_bytes <= 200_000
    assert 0 < len(cache) < 2 * COUNT


def test_a_question_larger_than_the_cache_is_not_kept() -> None:
    cache = CrossLayerCache(max_bytes=100_000)
    key = make_key("t", "", {"text": "x" * 100_000})
    assert not cache.store(key, "a", Slot([], True, 20, 0.0, 1_000, 0), 0.0)
    assert len(cache) == cache.size_bytes == 0


def test_an_empty_cache_takes_nothing() -> None:
    cache = CrossLayerCache()
    fill(cache, 1, random.Random(3), "text", "tagged")
    for layer in LAYERS:
        cache.invalidate_layer(layer)
    assert cache.size_bytes == 0


def test_orders_are_bounded_in_bytes() -> None:
    orders = Invalidations()
    for n in range(9_999):
        orders.add(n, ("a", "s" * 1_024, None, f"{n}" + "t" * 1_000))
    assert sum(len(str(target)) for target in orders._latest) < 8_000_000
    assert orders.latest("b", "s", (), str) >= 0, "what is forgotten applies to everything"


@pytest.mark.parametrize("part", [[], {}, {"a": {}}, 1.5, 1_000_000, [[[]]]], ids=repr)
def test_items_that_are_unlike_those_looked_at_are_not_taken_for_nothing(part: Any) -> None:
    plain = Item("urn:x", 1.0)
    odd = Item("urn:odd", 1.0, [part] * 20_000)
    value = encode(PartialResult("a", items=[plain, odd, plain, plain, plain]))
    gc.collect()
    tracemalloc.start()
    result = decode(value, PartialResult)
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert items_bytes(result.items) > taken / 6
