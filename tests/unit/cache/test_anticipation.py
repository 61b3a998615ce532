"""Warming and prefetch: what is proposed, what it may cost, and when it turns itself off."""

from __future__ import annotations

from typing import Any

import pytest

from anabranch.cache.budget import Budget
from anabranch.cache.cross_layer_cache import CrossLayerCache, Slot
from anabranch.cache.keys import Question, make_key, question_params
from anabranch.cache.prefetch import Prefetcher
from anabranch.cache.warming import Ageing, Warmer
from anabranch.contract.events import Item


def key(n: int, scope: str = "") -> Question:
    return make_key("factual", scope, {"n": n})


def rich() -> Budget:
    budget = Budget(share=0.5)
    budget.worked(50_000)
    return budget


def ageing(n: int, hits: int = 1, cost_ms: float = 10.0) -> Ageing:
    return Ageing(key(n), ("a",), 20, hits, cost_ms)


# -- the budget


def test_guesses_get_their_share_of_the_work_and_no_more() -> None:
    budget = Budget(share=0.2)
    budget.worked(800)
    spent = sum(10 for _ in range(100) if budget.spend(10))
    assert spent == 200


def test_without_work_nothing_is_guessed() -> None:
    assert not Budget().spend(1)


def test_what_was_saved_up_is_not_spent_all_at_once() -> None:
    budget = Budget(share=0.5)
    for _ in range(10_000):
        budget.worked(100)
    assert sum(100 for _ in range(10_000) if budget.spend(100)) <= 60_000


def test_below_the_precision_floor_it_is_off() -> None:
    budget = rich()
    for n in range(100):
        budget.settle(used=n % 10 == 0)
    assert not budget.on
    assert not budget.spend(1)


def test_a_few_bad_guesses_are_no_verdict() -> None:
    budget = rich()
    for _ in range(10):
        budget.settle(used=False)
    assert budget.spend(1)


def test_old_successes_do_not_excuse_new_failures() -> None:
    budget = rich()
    for used in [True] * 10_000 + [False] * 400:
        budget.settle(used)
    assert not budget.on


def test_its_statistics_say_what_came_of_it() -> None:
    budget = rich()
    budget.spend(30)
    budget.settle(used=True)
    assert budget.stats() == {
        "on": 1.0, "made": 1, "came_true": 1, "precision": 1.0, "spent_ms": 30.0,
    }  # fmt: skip


# -- warming


def test_what_saves_most_is_refreshed_first() -> None:
    proposed = Warmer(rich()).propose([ageing(1, 5, 10), ageing(2, 2, 90), ageing(3, 1, 10)])
    assert [p.key for p in proposed] == [key(2), key(1), key(3)]


def test_no_more_is_refreshed_than_the_budget_pays() -> None:
    budget = Budget(share=0.1)
    budget.worked(1_000)
    proposed = Warmer(budget).propose([ageing(n, cost_ms=50) for n in range(10)])
    assert len(proposed) == 2


def test_a_refresh_that_is_under_way_is_not_proposed_again() -> None:
    warmer = Warmer(rich())
    warmer.propose([ageing(1)])
    assert warmer.propose([ageing(1, hits=9)]) == []


def test_what_was_refreshed_is_refreshed_again_only_if_it_was_asked() -> None:
    warmer = Warmer(rich())
    warmer.propose([ageing(1, 5), ageing(2, 5)])
    warmer.propose([])
    assert [p.key for p in warmer.propose([ageing(1, 6), ageing(2, 5)])] == [key(1)]
    assert warmer.budget.precision == 0.5


def test_refreshed_questions_that_never_age_again_are_forgotten_as_bad_guesses() -> None:
    budget = Budget(share=0.9)
    warmer = Warmer(budget)
    for n in range(60):
        budget.worked(10_000)
        warmer.propose([ageing(n * 100 + i) for i in range(100)])
    assert len(warmer._refreshed) <= 5_000
    assert not budget.on


def test_the_cache_names_what_was_asked_again_and_will_expire_soon() -> None:
    cache = CrossLayerCache()
    for n in (1, 2):
        for layer, stored_ms in (("old", 0.0), ("young", 50.0)):
            slot = Slot([Item("urn:x", 1.0)], False, 20, stored_ms, 100, 0, (), 7.0, 10)
            cache.store(key(n), layer, slot, stored_ms)
    cache.probe(key(1), ("old",), limit=20, max_age_ms=None, now_ms=60.0)
    assert list(cache.ageing(74.0)) == []
    assert list(cache.ageing(76.0)) == [Ageing(key(1), ("old",), 20, 1, 7.0)]
    assert list(cache.ageing(100.0)) == []


def test_a_key_gives_back_the_params_it_was_made_from() -> None:
    params: dict[str, Any] = {"a": [1, 1.0, True, None, {"b": -0.0}], "c": "text"}
    assert repr(question_params(make_key("t", "s", params))) == repr(params)


# -- prefetch


def taught(*sequence: int, times: int = 5, **options: Any) -> Prefetcher:
    prefetcher = Prefetcher(rich(), **options)
    for _ in range(times):
        for n in sequence:
            prefetcher.asked(key(n), 0.0)
    return prefetcher


def test_what_always_follows_is_proposed() -> None:
    assert taught(1, 2, 3).likely(key(1)) == [(key(2), 1.0)]


@pytest.mark.parametrize(("others", "proposed"), [(4, True), (7, False)])
def test_only_what_follows_often_enough_is_proposed(others: int, proposed: bool) -> None:
    prefetcher = taught(times=0)
    for n in range(others + 1):
        prefetcher.asked(key(0), 0.0)
        prefetcher.asked(key(100 + n), 0.0)
    assert bool(prefetcher.likely(key(0))) is proposed


def test_a_single_sequence_is_no_pattern() -> None:
    assert taught(1, 2, 3, times=1).likely(key(1)) == []


def test_interleaved_streams_are_told_apart() -> None:
    prefetcher = taught(times=0)
    for _ in range(5):
        for n in (1, 2):
            prefetcher.asked(key(n), 0.0, stream="x")
            prefetcher.asked(key(n + 10), 0.0, stream="y")
    assert [k for k, _ in prefetcher.likely(key(1))] == [key(2)]


def test_nothing_is_learned_across_scopes() -> None:
    prefetcher = taught(times=0)
    for _ in range(5):
        prefetcher.asked(key(1, "s"), 0.0)
        prefetcher.asked(key(2, "t"), 0.0)
    assert prefetcher.likely(key(1, "s")) == []


def test_a_new_habit_replaces_an_old_one() -> None:
    prefetcher = taught(1, 2, times=200)
    for _ in range(200):
        prefetcher.asked(key(1), 0.0)
        prefetcher.asked(key(3), 0.0)
    assert prefetcher.likely(key(1))[0][0] == key(3)


def test_a_guess_that_is_asked_in_time_came_true() -> None:
    prefetcher = taught(1, 2)
    assert prefetcher.guess(key(2), 10.0, expires_ms=100.0)
    assert not prefetcher.guess(key(2), 10.0, expires_ms=100.0), "it is under way"
    prefetcher.asked(key(2), 99.0)
    assert prefetcher.budget.precision == 1.0


def test_a_guess_that_expires_unasked_did_not() -> None:
    prefetcher = taught(1, 2)
    prefetcher.guess(key(2), 10.0, expires_ms=100.0)
    prefetcher.asked(key(7), 100.0)
    assert prefetcher.budget.precision == 0.0


def test_memory_is_bounded() -> None:
    prefetcher = taught(*range(500), times=2, max_keys=50)
    for n in range(500):
        prefetcher.guess(key(n), 0.0, expires_ms=1e9)
    assert len(prefetcher._followers) <= 50
    assert len(prefetcher._guessed) <= 50
