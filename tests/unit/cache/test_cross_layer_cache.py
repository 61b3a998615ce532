"""Combinations of layer results: what is served, what is not, and what it costs to hold."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import pytest
from cached import KEY, OTHER, TTL_MS, ask, holding, key, sized, slot
from hypothesis import given
from hypothesis import strategies as st

from anabranch.cache.cross_layer_cache import CrossLayerCache
from anabranch.cache.keys import make_key, question_digest
from anabranch.cache.slots import Probe, Slot
from anabranch.contract.events import Item
from anabranch.contract.keys import digest

# -- keys


def test_keys_do_not_depend_on_the_order_of_params() -> None:
    assert make_key("t", "s", {"a": 1, "b": {"x": 1, "y": 2}}) == make_key(
        "t", "s", {"b": {"y": 2, "x": 1}, "a": 1}
    )


def test_keys_depend_on_the_order_of_lists() -> None:
    assert make_key("t", "s", {"a": [1, 2]}) != make_key("t", "s", {"a": [2, 1]})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0), (1, True), (0, False), (1.0, True), (0.0, -0.0), ("1", 1), (None, "null"),
        ([], {}), (["[", 1], [1]), ([["a", 1]], {"a": 1}), (["f", 1.0], 1.0), ("", None),
    ],
)  # fmt: skip
def test_values_that_json_tells_apart_make_different_keys(one: Any, other: Any) -> None:
    assert make_key("t", "s", {"a": one}) != make_key("t", "s", {"a": other})
    assert make_key("t", "s", {"a": [one]}) != make_key("t", "s", {"a": [other]})


def test_an_absent_param_is_not_a_null_one() -> None:
    assert make_key("t", "s", {}) != make_key("t", "s", {"a": None})


def test_key_params_leave_out_all_other_params() -> None:
    params = {"text": "why", "trace": 7}
    assert make_key("t", "s", params, ["text", "gone"]) == make_key("t", "s", {"text": "why"})


def test_a_value_that_is_not_json_is_refused() -> None:
    with pytest.raises(TypeError, match="set"):
        make_key("t", "s", {"a": {1, 2}})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=4)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.text(max_size=3), json_values, max_size=4))
def test_the_digest_of_a_key_is_that_of_its_question(params: dict[str, Any]) -> None:
    assert question_digest(make_key("t", "s", params)) == digest("t", "s", params)


@given(
    st.dictionaries(st.just("a"), json_values, max_size=1),
    st.dictionaries(st.just("a"), json_values, max_size=1),
)
def test_keys_are_equal_exactly_if_their_digests_are(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    equal = make_key("t", "s", one) == make_key("t", "s", other)
    assert equal is (digest("t", "s", one) == digest("t", "s", other))


# -- combinations


def test_what_was_never_stored_is_missing() -> None:
    assert ask(CrossLayerCache(), "a", "b") == Probe({}, ("a", "b"))


def test_a_stored_combination_is_served_whole() -> None:
    probe = ask(holding("a", "b"), "a", "b")
    assert set(probe.hits) == {"a", "b"}
    assert probe.missing == ()


def test_any_subset_of_a_stored_combination_is_served() -> None:
    probe = ask(holding("a", "b", "c"), "c", "a")
    assert set(probe.hits) == {"a", "c"}
    assert probe.missing == ()


def test_of_a_superset_only_what_is_missing_is_to_be_fetched() -> None:
    probe = ask(holding("a", "b"), "x", "b", "y")
    assert set(probe.hits) == {"b"}
    assert probe.missing == ("x", "y")


def test_layers_stored_by_different_queries_are_served_together() -> None:
    cache = holding("a")
    cache.store(KEY, "b", slot(stored_ms=50.0), 50.0)
    assert ask(cache, "a", "b", now_ms=60.0).missing == ()


def test_no_result_crosses_questions_or_scopes() -> None:
    cache = holding("a")
    for other in (
        OTHER,
        make_key("factual", "tenant", {"text": "why"}),
        make_key("temporal", "", {"text": "why"}),
    ):
        assert ask(cache, "a", of=other).missing == ("a",)


def test_layers_may_be_given_as_a_list() -> None:
    cache = holding("a")
    assert cache.probe(KEY, ["a"], limit=20, max_age_ms=None, now_ms=0.0).missing == ()


# -- limits


@pytest.mark.parametrize(
    ("limit", "complete", "served"), [(20, False, True), (21, False, False), (999, True, True)]
)
def test_a_slot_serves_up_to_its_limit_or_beyond_if_complete(
    limit: int, complete: bool, served: bool
) -> None:
    probe = ask(holding("a", complete=complete), "a", limit=limit)
    assert bool(probe.hits) is served


def test_a_smaller_limit_gets_the_whole_slot() -> None:
    assert len(ask(holding("a"), "a", limit=1).hits["a"].items) == 3


# -- age


def test_a_slot_is_served_until_its_ttl_and_not_at_it() -> None:
    cache = holding("a")
    assert ask(cache, "a", now_ms=TTL_MS - 1).missing == ()
    assert ask(cache, "a", now_ms=TTL_MS).missing == ("a",)


def test_the_repeated_lookup_expires_like_the_first() -> None:
    cache = holding("a", "b")
    cache.store(KEY, "b", slot(stored_ms=1.0, ttl_ms=10), 1.0)
    for now_ms in (2.0, 3.0, 10.0):
        assert ask(cache, "a", "b", now_ms=now_ms).missing == ()
    assert ask(cache, "a", "b", now_ms=11.0).missing == ("b",)


def test_an_expired_slot_goes_and_is_counted() -> None:
    cache = holding("a", "b")
    ask(cache, "a", now_ms=TTL_MS)
    assert cache.stats()["evictions"]["expired"] == 2
    assert len(cache) == cache.size_bytes == 0


def test_its_age_counts_from_the_partial_not_from_the_storing() -> None:
    cache = CrossLayerCache()
    assert cache.store(KEY, "a", slot(stored_ms=0.0), TTL_MS - 1.0)
    assert ask(cache, "a", now_ms=TTL_MS).missing == ("a",)


def test_what_has_expired_is_not_stored() -> None:
    cache = CrossLayerCache()
    assert not cache.store(KEY, "a", slot(), TTL_MS)
    assert not cache.store(KEY, "a", slot(ttl_ms=0), 0.0)
    assert len(cache) == 0


@pytest.mark.parametrize(("max_age_ms", "served"), [(100, True), (99, False), (None, True)])
def test_a_query_may_ask_for_younger_results(max_age_ms: int | None, served: bool) -> None:
    cache = holding("a")
    for _ in range(2):  # the second one finds a view
        assert bool(ask(cache, "a", now_ms=100.0, max_age_ms=max_age_ms).hits) is served
        ask(cache, "a", now_ms=100.0)


def test_a_query_that_wants_younger_results_takes_nothing_from_others() -> None:
    cache = holding("a")
    ask(cache, "a", now_ms=100.0, max_age_ms=1)
    assert ask(cache, "a", now_ms=100.0).missing == ()


def test_a_max_age_of_zero_goes_past_the_cache() -> None:
    cache = holding("a")
    ask(cache, "a")
    assert ask(cache, "a", max_age_ms=0).missing == ("a",)
    cache.store(KEY, "a", slot(stored_ms=9.0), 9.0)
    assert ask(cache, "a", now_ms=5.0, max_age_ms=0).missing == ("a",), "the broker's clock is off"


def test_empty_results_are_believed_briefly_and_not_all_for_the_same_time() -> None:
    cache = CrossLayerCache()
    kept = []
    for n in range(50):
        empty = slot(0)
        cache.store(key(n), "a", empty, 0.0)
        kept.append(empty.ttl_ms)
    assert 2_500 <= min(kept) < max(kept) <= 5_000
    assert len(set(kept)) > 20


def test_an_empty_result_keeps_a_ttl_that_is_shorter_still() -> None:
    empty = slot(0, ttl_ms=7)
    CrossLayerCache().store(KEY, "a", empty, 0.0)
    assert empty.ttl_ms == 7


def test_the_ttl_is_the_results_own_else_the_layers_else_the_default() -> None:
    cache = CrossLayerCache(default_ttl_seconds=2, ttl_ms={"a": 30})
    assert cache.ttl_for("a", 7) == 7
    assert cache.ttl_for("a", 0) == 0
    assert cache.ttl_for("a") == 30
    assert cache.ttl_for("b") == 2_000


def test_the_layers_of_the_original_have_its_ttls() -> None:
    cache = CrossLayerCache()
    seconds = {layer: cache.ttl_for(layer) / 1000 for layer in ("episodic", "procedural", "meta")}
    assert seconds == {"episodic": 180, "procedural": 600, "meta": 120}
    assert cache.ttl_for("unheard_of") == 300_000


# -- refreshing beside a miss


def test_beside_a_partial_miss_layers_with_little_ttl_left_are_named() -> None:
    cache = holding("old", "young")
    cache.store(KEY, "young", slot(stored_ms=50_000.0), 50_000.0)
    probe = ask(cache, "old", "young", "gone", now_ms=TTL_MS * 0.76)
    assert probe.refresh == ("old",)
    assert set(probe.hits) == {"old", "young"}


def test_a_full_hit_refreshes_nothing() -> None:
    assert ask(holding("a", "b"), "a", "b", now_ms=TTL_MS * 0.9).refresh == ()


def test_with_a_quarter_of_the_ttl_left_nothing_is_refreshed() -> None:
    assert ask(holding("a"), "a", "gone", now_ms=TTL_MS * 0.75).refresh == ()


# -- replacing


def test_a_later_partial_replaces_a_slot() -> None:
    cache = holding("a")
    later = slot(1, stored_ms=1.0)
    assert cache.store(KEY, "a", later, 2.0)
    assert ask(cache, "a", now_ms=2.0).hits["a"] == later


@pytest.mark.parametrize("stored_ms", [10.0, 9.0])
def test_a_partial_that_is_no_later_replaces_nothing(stored_ms: float) -> None:
    first = slot(stored_ms=10.0)
    cache = CrossLayerCache()
    cache.store(KEY, "a", first, 10.0)
    assert not cache.store(KEY, "a", slot(stored_ms=stored_ms), 11.0)
    assert ask(cache, "a", now_ms=11.0).hits["a"] == first


def test_a_replaced_slot_is_not_served_by_a_repeated_lookup() -> None:
    cache = holding("a", "b")
    ask(cache, "a", "b")
    later = slot(stored_ms=1.0)
    cache.store(KEY, "b", later, 1.0)
    assert ask(cache, "a", "b", now_ms=1.0).hits["b"] == later


def test_earlier_probes_keep_what_they_were_given() -> None:
    cache = holding("a")
    before = ask(cache, "a")
    cache.store(KEY, "a", slot(stored_ms=1.0), 1.0)
    cache.store(KEY, "b", slot(), 1.0)
    assert set(before.hits) == {"a"}
    assert before.hits["a"].stored_ms == 0.0


# -- invalidation


@pytest.mark.parametrize(
    "target",
    [
        {"layer": "a"}, {"scope": ""}, {"key": question_digest(KEY)}, {"tags": ["x"]}, {},
        {"tags": ["z", "x"]}, {"layer": "a", "scope": ""}, {"scope": "", "tags": ["x"]},
    ],
)  # fmt: skip
def test_an_order_kills_what_it_names(target: dict[str, Any]) -> None:
    cache = holding("a", tags=("x", "y"))
    cache.invalidate(generation=5, **target)
    assert ask(cache, "a").missing == ("a",)


@pytest.mark.parametrize(
    "target",
    [
        {"layer": "b"}, {"scope": "t"}, {"key": question_digest(OTHER)}, {"tags": ["z"]},
        {"layer": "a", "scope": "t"}, {"layer": "b", "tags": ["x"]},
    ],
)  # fmt: skip
def test_an_order_kills_nothing_else(target: dict[str, Any]) -> None:
    cache = holding("a", tags=("x", "y"))
    cache.invalidate(generation=5, **target)
    assert ask(cache, "a").missing == ()


def test_an_order_that_the_lookup_knew_of_kills_nothing() -> None:
    cache = holding("a", generation=5)
    cache.invalidate(generation=4, layer="a")
    assert ask(cache, "a").missing == ()


def test_an_order_that_falls_into_a_fetch_is_not_lost() -> None:
    cache = CrossLayerCache()
    cache.invalidate(generation=5, layer="a")
    assert not cache.store(KEY, "a", slot(generation=5), 0.0)
    assert cache.store(KEY, "a", slot(generation=6), 0.0)


def test_an_order_spares_the_other_layers_of_a_record() -> None:
    cache = holding("a", "b")
    cache.invalidate(generation=5, layer="a")
    probe = ask(cache, "a", "b")
    assert (set(probe.hits), probe.missing) == ({"b"}, ("a",))


def test_a_lookup_after_an_order_is_as_before_where_it_did_not_concern() -> None:
    cache = holding("a")
    first = ask(cache, "a")
    cache.invalidate(generation=9, layer="b")
    assert ask(cache, "a") == first


def test_an_earlier_order_that_is_read_later_changes_nothing_for_what_a_later_one_killed() -> None:
    cache = CrossLayerCache()
    cache.invalidate(generation=9, layer="a")
    cache.invalidate(generation=3, layer="b")
    assert not cache.store(KEY, "a", slot(generation=5), 0.0)


def test_an_order_for_a_combination_leaves_the_counts_of_its_parts() -> None:
    cache = holding("a", "b")
    assert cache.invalidate(generation=5, layer="a", tags=["none"]) == 0
    assert cache.invalidate(generation=6, layer="a") == 1


def test_orders_are_counted_by_what_they_concern_and_only_once() -> None:
    cache = CrossLayerCache()
    for n in range(10):
        cache.store(key(n, scope="s" if n < 4 else "t"), "a", slot(tags=(f"n{n % 2}",)), 0.0)
        cache.store(key(n), "b", slot(), 0.0)
    assert cache.invalidate(generation=5, scope="s") == 4
    assert cache.invalidate(generation=6, scope="s") == 0
    assert cache.invalidate(generation=7, tags=["n0", "n1"]) == 10
    assert cache.invalidate(generation=8, layer="b") == 10
    assert cache.invalidate(generation=9, layer="never") == 0
    assert cache.stats()["orders"] == 5


def test_the_count_recovers_after_new_results_came() -> None:
    cache = CrossLayerCache()
    for n in range(3):
        cache.store(key(n), "a", slot(), 0.0)
    cache.invalidate(generation=5, layer="a")
    for n in range(2):
        cache.store(key(n), "a", slot(generation=6, stored_ms=1.0), 1.0)
    assert cache.invalidate(generation=6, layer="a") == 2


def test_found_dead_slots_are_counted_as_invalidated() -> None:
    cache = holding("a", "b")
    cache.invalidate(generation=5, key=question_digest(KEY))
    ask(cache, "a", "b")
    assert cache.stats()["evictions"]["invalidated"] == 2


def test_too_many_orders_kill_too_much_and_never_too_little() -> None:
    cache = holding("a", generation=0)
    cache.store(OTHER, "a", slot(generation=99_999), 0.0)
    for n in range(10_001):
        cache.invalidate(generation=n, tags=[f"document-{n}"])
    assert ask(cache, "a").missing == ("a",)
    assert ask(cache, "a", of=OTHER).missing == ()


def test_a_cache_of_its_own_forgets_a_layer_at_once() -> None:
    cache = holding("a", "b")
    assert cache.invalidate_layer("a") == 1
    assert ask(cache, "a", "b").missing == ("a",)
    assert cache.store(KEY, "a", slot(), 0.0), "nothing is refused afterwards"


# -- what a takeover read back


def test_what_was_read_back_is_found_under_its_digest() -> None:
    cache = CrossLayerCache()
    assert cache.store(question_digest(KEY), "a", slot(), 0.0)
    assert ask(cache, "a").missing == ()
    assert len(cache) == 1


def test_what_was_read_back_joins_what_is_there() -> None:
    cache = holding("a")
    cache.store(question_digest(KEY), "b", slot(), 0.0)
    assert ask(cache, "a", "b").missing == ()
    assert len(cache) == 1


def test_what_was_read_back_replaces_nothing_later() -> None:
    cache = CrossLayerCache()
    later = slot(stored_ms=5.0)
    cache.store(KEY, "a", later, 5.0)
    cache.store(question_digest(KEY), "a", slot(stored_ms=1.0), 5.0)
    assert ask(cache, "a", "b", now_ms=5.0).hits["a"] == later


def test_an_order_for_a_scope_reaches_what_was_read_back_without_it() -> None:
    cache = CrossLayerCache()
    cache.invalidate(generation=7, scope="")
    cache.store(question_digest(KEY), "a", slot(generation=7), 0.0)
    assert ask(cache, "a").missing == ("a",)


def test_an_order_for_a_key_counts_what_lies_under_its_digest() -> None:
    cache = CrossLayerCache()
    cache.store(question_digest(KEY), "a", slot(), 0.0)
    assert cache.invalidate(generation=5, key=question_digest(KEY)) == 1


# -- bounds


@pytest.mark.parametrize("policy", ["s3fifo", "lru"])
def test_no_more_entries_are_held_than_allowed(policy: Any) -> None:
    cache = CrossLayerCache(max_entries=10, policy=policy)
    for n in range(100):
        cache.store(key(n), "a", slot(), 0.0)
        assert len(cache) <= 10
    assert cache.stats()["evictions"]["capacity"] == 90


@pytest.mark.parametrize("policy", ["s3fifo", "lru"])
def test_no_more_bytes_are_held_than_allowed(policy: Any) -> None:
    cache = CrossLayerCache(max_bytes=10_000, policy=policy)
    for n in range(100):
        cache.store(key(n), "a", sized(400 + n), 0.0)
        assert cache.size_bytes <= 10_000
    assert len(cache) >= 4


def test_whoever_stores_is_told_whether_it_is_held() -> None:
    cache = CrossLayerCache(max_entries=4)
    for n in range(4):
        cache.store(key(n), "a", slot(), 0.0)
        for _ in range(5):
            ask(cache, "a", of=key(n))
    told = [(n, cache.store(key(n), "a", slot(), 0.0)) for n in range(4, 12)]
    assert not all(held for _, held in told), "who is asked more often stays"
    assert told[-1][1] is not bool(ask(cache, "a", of=key(11)).missing)
    assert not any(not held and ask(cache, "a", of=key(n)).hits for n, held in told)


def test_what_comes_together_stays_or_goes_as_one() -> None:
    """One of the layers saves more for its room than those that are held, the others less."""
    cache = CrossLayerCache(max_entries=4)
    for n in range(4):
        cache.store(key(n), "a", sized(1_000, cost_ms=50.0), 0.0)
    came = [(layer, sized(1_000, cost_ms=cost_ms)) for layer, cost_ms in (("a", 1.0), ("b", 400.0))]
    assert cache.store_all(key(4), came, 0.0)
    assert ask(cache, "a", "b", of=key(4)).missing == ()
    assert cache.stats()["evictions"]["capacity"] == 1


def test_of_what_comes_together_the_second_of_a_layer_is_refused() -> None:
    cache = CrossLayerCache()
    first, second = slot(1), slot(2)
    assert not cache.store_all(KEY, [("a", first), ("a", second), ("b", slot())], 0.0)
    assert ask(cache, "a", "b").hits["a"] == first
    assert cache.stats()["evictions"]["refused"] == 1


def test_a_record_that_grows_makes_others_go() -> None:
    cache = CrossLayerCache(max_bytes=130_000, policy="lru")
    for n in range(4):
        cache.store(key(n), "a", sized(30_000), 0.0)
    cache.store(key(3), "b", sized(30_000), 0.0)
    assert ask(cache, "a", of=key(0)).missing == ("a",)
    assert ask(cache, "a", "b", of=key(3)).missing == ()


def test_what_is_larger_than_the_cache_is_refused_and_displaces_nothing() -> None:
    cache = CrossLayerCache(max_bytes=10_000)
    cache.store(KEY, "a", sized(6_000), 0.0)
    assert not cache.store(OTHER, "a", sized(10_001), 0.0)
    assert not cache.store(KEY, "b", sized(5_000), 0.0)
    assert ask(cache, "a").missing == ()


def test_least_recently_used_goes_first_under_lru() -> None:
    cache = CrossLayerCache(max_entries=2, policy="lru")
    for n in (0, 1):
        cache.store(key(n), "a", slot(), 0.0)
    ask(cache, "a", of=key(0))
    cache.store(key(2), "a", slot(), 0.0)
    assert ask(cache, "a", of=key(0)).missing == ()
    assert ask(cache, "a", of=key(1)).missing == ("a",)


def held_bytes_per_entry(layers: tuple[str, ...], *, asked: bool) -> float:
    """What entries cost beyond their items and the text of their questions."""
    count, items = 2_000, [Item("urn:x", 1.0)]
    cache = CrossLayerCache()
    texts = [f"question {n}" for n in range(count)]
    gc.collect()  # what lies in free lists would be taken from there, and not be seen
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for n, text in enumerate(texts):
        question = make_key("factual", "", {"text": text})
        for layer in layers:
            fresh = Slot(items, False, 20, 1e12 + n, TTL_MS, 5, (), 10.5 + n, 1_000 + n)
            cache.store(question, layer, fresh, 1e12)
        if asked:
            ask(cache, *layers, of=question, now_ms=1e12)
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert len(cache) == count
    return held / count


@pytest.mark.parametrize(("layers", "bound"), [("a", 400), ("ab", 500), ("abc", 600)])
def test_an_entry_costs_little_beyond_its_payload(layers: str, bound: int) -> None:
    assert held_bytes_per_entry(tuple(layers), asked=False) < bound


def test_a_full_hit_adds_little_to_an_entry() -> None:
    asked = held_bytes_per_entry(("a", "b"), asked=True)
    assert asked - held_bytes_per_entry(("a", "b"), asked=False) < 250


# -- statistics


def test_statistics_are_those_of_the_original_and_more() -> None:
    cache = holding("a", "b")
    for _ in range(3):
        ask(cache, "a", "b")
    ask(cache, "a", "c", now_ms=TTL_MS * 0.8)
    ask(cache, "c", of=OTHER)
    assert cache.hit_rate == 3 / 5
    assert cache.total_queries_saved == 3
    assert cache.avg_layers_per_hit == 2.0
    assert cache.top_hit_entries == [(question_digest(KEY), 4)]
    stats = cache.stats()
    assert stats["layer_hit_rate"] == 7 / 9
    assert stats["saved_ms"] == 70.0
    assert stats["refreshes"] == 1
    assert stats["partial_hits"] == 1
    assert stats["slots"] == 2


def test_hits_are_counted_whatever_becomes_of_the_record() -> None:
    cache = holding("a")
    for _ in range(5):
        ask(cache, "a")
    ask(cache, "a", limit=10)
    cache.invalidate_layer("a")
    assert len(cache) == 0
    assert cache.total_queries_saved == 6
    assert cache.stats()["probes"] == 6


def test_the_size_is_in_megabytes() -> None:
    cache = CrossLayerCache()
    cache.store(KEY, "a", sized(1_500_000), 0.0)
    assert cache.cache_size_mb == cache.size_bytes / 1e6 == pytest.approx(1.5, rel=0.01)


def test_an_unused_cache_has_statistics_too() -> None:
    stats = CrossLayerCache().stats()
    assert stats["hit_rate"] == stats["layer_hit_rate"] == stats["avg_layers_per_hit"] == 0.0
