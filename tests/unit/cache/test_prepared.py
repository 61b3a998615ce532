"""What was made of a full hit is kept beside it, and goes with the first change of its slots."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cached import KEY, OTHER, TTL_MS, ask, holding, key, sized, slot

from anabranch.cache.cross_layer_cache import CrossLayerCache
from anabranch.cache.keys import question_digest

Change = Callable[[CrossLayerCache], object]


def prepared(cache: CrossLayerCache, *layers: str, **changes: Any) -> Any:
    asked: dict[str, Any] = {"limit": 20, "max_age_ms": None, "now_ms": 0.0, "revision": 0}
    return cache.prepared(KEY, layers, **(asked | changes))


def remembering(*layers: str, memo: bytes = b"answer") -> CrossLayerCache:
    cache = holding(*layers)
    assert cache.remember(KEY, layers, 20, ask(cache, *layers).hits, memo, len(memo))
    return cache


def test_a_repeated_question_gets_the_remembered_answer() -> None:
    assert prepared(remembering("a", "b"), "a", "b") == b"answer"


def test_another_limit_or_combination_does_not() -> None:
    for layers, limit in ((("a", "b"), 10), (("a",), 20), (("b", "a"), 20)):
        assert prepared(remembering("a", "b"), *layers, limit=limit) is None


def test_the_remembered_answer_goes_with_its_slots() -> None:
    for change in (
        lambda cache: cache.store(KEY, "b", slot(stored_ms=1.0), 1.0),
        lambda cache: cache.invalidate(generation=5, layer="b"),
    ):
        cache = remembering("a", "b")
        change(cache)
        assert prepared(cache, "a", "b", now_ms=2.0) is None
    assert prepared(remembering("a"), "a", now_ms=TTL_MS) is None


def test_a_remembered_answer_outlives_an_order_that_does_not_concern_it() -> None:
    cache = remembering("a")
    cache.invalidate(generation=9, layer="b")
    assert prepared(cache, "a") == b"answer"


def test_an_answer_made_from_other_slots_is_not_remembered() -> None:
    cache = holding("a")
    before = ask(cache, "a").hits
    cache.store(KEY, "a", slot(stored_ms=1.0), 1.0)
    assert not cache.remember(KEY, ("a",), 20, before, b"answer", 6)
    assert not cache.remember(OTHER, ("a",), 20, before, b"answer", 6)


def test_an_answer_can_be_remembered_as_soon_as_its_slots_are_stored() -> None:
    cache = CrossLayerCache()
    slots = {"a": slot(), "b": slot()}
    for layer, fresh in slots.items():
        cache.store(KEY, layer, fresh, 0.0)
    assert cache.remember(KEY, ("a", "b"), 20, slots, b"answer", 6)
    assert prepared(cache, "a", "b") == b"answer"


def test_remembered_bytes_count() -> None:
    cache = holding("a")
    before = cache.size_bytes
    slots = ask(cache, "a").hits
    held = cache.size_bytes
    cache.remember(KEY, ("a",), 20, slots, b"x" * 100, 100)
    assert cache.size_bytes == held + 100 > before + 100
    cache.remember(KEY, ("a",), 20, slots, b"x" * 10, 10)
    assert cache.size_bytes == held + 10


def test_an_answer_larger_than_the_cache_is_not_remembered() -> None:
    cache = CrossLayerCache(max_bytes=10_000)
    cache.store(KEY, "a", sized(5_000), 0.0)
    assert not cache.remember(KEY, ("a",), 20, ask(cache, "a").hits, b"x" * 4_900, 4_900)
    assert ask(cache, "a").missing == ()


def test_memo_hits_are_counted() -> None:
    cache = remembering("a")
    for _ in range(3):
        ask(cache, "a")
    assert cache.stats()["memo_hits"] == 3


# -- the short path


def test_a_full_hit_is_answered_without_its_slots() -> None:
    cache = remembering("a", "b")
    assert prepared(cache, "a", "b") == b"answer"
    assert prepared(cache, "a", "b", now_ms=TTL_MS - 1.0, max_age_ms=TTL_MS - 1) == b"answer"


@pytest.mark.parametrize(
    "changes",
    [
        {"limit": 10}, {"max_age_ms": 0}, {"max_age_ms": 9, "now_ms": 10.0},
        {"now_ms": float(TTL_MS)}, {"revision": 1},
    ],
)  # fmt: skip
def test_only_what_is_asked_for_is_given(changes: dict[str, Any]) -> None:
    cache = remembering("a", "b")
    before = cache.stats()["probes"]
    assert prepared(cache, "a", "b", **changes) is None
    assert cache.stats()["probes"] == before, "nothing is counted, as a probe follows"


@pytest.mark.parametrize("layers", [("a",), ("b", "a"), ("a", "b", "c")])
def test_nor_for_another_combination(layers: tuple[str, ...]) -> None:
    assert prepared(remembering("a", "b"), *layers) is None


def test_nothing_is_prepared_before_it_is_remembered() -> None:
    cache = holding("a")
    assert prepared(cache, "a") is None
    ask(cache, "a")
    assert prepared(cache, "a") is None


@pytest.mark.parametrize(
    "change",
    [
        lambda cache: cache.store(KEY, "b", slot(stored_ms=1.0), 1.0),
        lambda cache: cache.store(KEY, "c", slot(), 1.0),
        lambda cache: cache.invalidate(generation=5, layer="b"),
        lambda cache: cache.invalidate(generation=5, scope=""),
        lambda cache: cache.invalidate(generation=5, key=question_digest(KEY)),
        lambda cache: cache.invalidate(generation=5),
        lambda cache: cache.invalidate_layer("a"),
        lambda cache: cache.forget_all(),
        lambda cache: cache.forget_after(-20_000.0),
        lambda cache: ask(cache, "a"),
    ],
)
def test_it_goes_with_any_change(change: Change) -> None:
    cache = holding("a", "b")
    cache.remember(KEY, ("a", "b"), 20, ask(cache, "a", "b").hits, b"answer", 5_000)
    change(cache)
    assert prepared(cache, "a", "b", now_ms=1.0) is None
    assert cache.size_bytes < 5_000, "and so do its bytes"


def test_it_outlives_an_order_that_concerns_others() -> None:
    cache = remembering("a")
    cache.invalidate(generation=9, layer="b")
    assert prepared(cache, "a") == b"answer"
    cache.invalidate(generation=4, layer="a")
    assert prepared(cache, "a") == b"answer", "it was looked up after that"


def test_another_revision_takes_its_place() -> None:
    cache = remembering("a")
    slots = ask(cache, "a").hits
    assert cache.remember(KEY, ("a",), 20, slots, b"heavier", 7, revision=1)
    assert prepared(cache, "a") is None
    assert prepared(cache, "a", revision=1) == b"heavier"


def test_a_full_hit_without_its_slots_counts_as_one() -> None:
    cache = remembering("a", "b")
    for _ in range(3):
        prepared(cache, "a", "b")
    stats = cache.stats()
    assert (stats["probes"], stats["total_queries_saved"], stats["memo_hits"]) == (4, 4, 3)
    assert stats["saved_ms"] == 4 * 20.0
    assert cache.top_hit_entries == [(question_digest(KEY), 4)]


def test_it_is_a_use_for_whoever_is_evicted_least_recently_used() -> None:
    cache = CrossLayerCache(max_entries=2, policy="lru")
    cache.store(KEY, "a", slot(), 0.0)
    cache.remember(KEY, ("a",), 20, ask(cache, "a").hits, b"answer", 6)
    cache.store(OTHER, "a", slot(), 0.0)
    assert prepared(cache, "a") == b"answer"
    cache.store(key(1), "a", slot(), 0.0)
    assert ask(cache, "a", of=OTHER).missing == ("a",)


def test_a_probe_counts_though_there_is_no_room_for_what_it_found() -> None:
    cache = CrossLayerCache(max_bytes=1_600)
    assert cache.store(KEY, "a", sized(650), 0.0)
    ask(cache, "a")
    assert len(cache) == 0
    assert cache.total_queries_saved == 1


def test_what_was_made_of_more_than_is_held_is_not_remembered() -> None:
    cache = holding("a", limit=10)
    assert not cache.remember(KEY, ("a",), 20, ask(cache, "a", limit=10).hits, b"answer", 6)
    assert cache.remember(KEY, ("a",), 10, ask(cache, "a", limit=10).hits, b"answer", 6)


@pytest.mark.parametrize("later", [{"stored_ms": 0.0}, {"stored_ms": 1.0, "items": None}])
def test_nor_what_was_made_of_a_result_that_came_before(later: dict[str, Any]) -> None:
    cache = holding("a")
    before = ask(cache, "a").hits
    cache.forget_all()
    if "items" in later:
        later["items"] = before["a"].items
    assert cache.store(KEY, "a", slot(**later), 1.0)
    assert not cache.remember(KEY, ("a",), 20, before, b"answer", 6)
