"""Who goes when the cache is full: each policy by itself, on traces one can follow by hand."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from anabranch.cache.eviction import Entry, Lru, S3Fifo

Make = Callable[[], Any]


class Weighed(Entry):
    """An entry of a given worth."""

    value: float = 1.0

    @property
    def worth(self) -> float:
        return self.value


def replay(
    policy: Any, trace: Iterable[int], capacity: int, worth: Callable[[int], float] = lambda n: 1.0
) -> tuple[int, set[int]]:
    """Hits of a trace, and the keys held at its end."""
    held: dict[int, Entry] = {}
    hits = 0
    for n in trace:
        entry = held.get(n)
        if entry is not None:
            hits += 1
            entry.hits += 1
            if policy.touch:
                policy.touch(entry)
            continue
        held[n] = Weighed((n,), value=worth(n))
        policy.add(held[n])
        if len(held) > capacity:
            del held[policy.evict().key[0]]
    return hits, set(held)


def small_s3fifo() -> S3Fifo[Entry]:
    return S3Fifo(20)


@pytest.mark.parametrize("make", [Lru, small_s3fifo])
def test_an_empty_policy_has_nobody_to_evict(make: Make) -> None:
    with pytest.raises(IndexError):
        make().evict()


def test_lru_evicts_what_was_used_longest_ago() -> None:
    assert replay(Lru(), [1, 2, 3, 1, 4, 5], 3)[1] == {1, 4, 5}


def test_lru_gets_nothing_from_a_loop_larger_than_itself() -> None:
    assert replay(Lru(), list(range(11)) * 20, 10)[0] == 0


def test_s3fifo_keeps_a_fixed_part_of_a_loop() -> None:
    hits, _ = replay(S3Fifo(100), list(range(1_000)) * 20, 100)
    assert hits > 0.9 * 100 * 19


def test_s3fifo_keeps_what_is_used_through_a_scan() -> None:
    warm = list(range(10)) * 5
    scan = range(1_000, 1_500)
    assert len(replay(S3Fifo(20), [*warm, *scan], 20)[1] & set(range(10))) >= 9


def test_s3fifo_lets_go_what_was_popular_once() -> None:
    old, new = list(range(10)) * 1_000, list(range(100, 120)) * 200
    assert len(replay(S3Fifo(12), [*old, *new], 12)[1] & set(range(100, 120))) > 6


def popular(rng: random.Random, count: int) -> list[int]:
    """Requests for 500 keys, Zipf 1.0, in an order of popularity of chance."""
    weights = [1 / (rank + 1) for rank in range(500)]
    return rng.choices(rng.sample(range(500), 500), weights, k=count)


def test_s3fifo_beats_lru_even_where_popularity_changes_again_and_again() -> None:
    rng = random.Random(1)
    trace = [n for _ in range(10) for n in popular(rng, 5_000)]
    assert replay(S3Fifo(50), trace, 50)[0] > replay(Lru(), trace, 50)[0]


def test_s3fifo_lets_one_go_that_fell_silent_among_many_that_did_not() -> None:
    steady = popular(random.Random(1), 40_000)
    with_it = [n for other in steady[:2_000] for n in (other, 9_999)]
    assert 9_999 in replay(S3Fifo(50), [*with_it, *steady[2_000:2_005]], 50)[1]
    assert 9_999 not in replay(S3Fifo(50), [*with_it, *steady[2_000:]], 50)[1]


def test_s3fifo_remembers_how_often_it_was_asked_for_what_it_let_go() -> None:
    policy = S3Fifo[Entry](2)
    for n in range(4):
        policy.add(Weighed((n,)))
    often = Weighed((9,))
    policy.add(often)
    often.hits = 5
    policy.remove(often)
    policy.add(Weighed((9,)))
    gone = [policy.evict().key[0] for _ in range(4)]
    assert 9 not in gone


def test_s3fifo_prefers_what_saves_more_for_its_room() -> None:
    trace = [n for _ in range(50) for n in range(40)]
    _, held = replay(S3Fifo(10), trace, 10, worth=lambda n: 100.0 if n % 4 == 0 else 1.0)
    assert held >= set(range(0, 36, 4))


def test_s3fifo_does_not_trade_equals() -> None:
    _, held = replay(S3Fifo(10), range(1_000), 10)
    assert len(held & set(range(10))) >= 9


def test_s3fifo_passes_over_the_others_of_a_sample_in_their_order() -> None:
    policy = S3Fifo[Entry](10)
    for n in range(10):
        policy.add(Weighed((n,)))
    assert [policy.evict().key[0] for _ in range(10)] == [0, 8, 7, 9, 1, 2, 3, 4, 5, 6]


class PolicyMachine(RuleBasedStateMachine):
    """Adding, hitting, removing and evicting in any order: nobody is lost or evicted twice."""

    @initialize(make=st.sampled_from([Lru, small_s3fifo]))
    def begin(self, make: Make) -> None:
        self.policy = make()
        self.held: dict[int, Entry] = {}

    @rule(n=st.integers(0, 30))
    def add_or_hit(self, n: int) -> None:
        entry = self.held.get(n)
        if entry is None:
            self.held[n] = entry = Entry((n,))
            self.policy.add(entry)
        else:
            entry.hits += 1
            if self.policy.touch:
                self.policy.touch(entry)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        self.policy.remove(self.held.pop(data.draw(st.sampled_from(sorted(self.held)))))

    @precondition(lambda self: self.held)
    @rule()
    def evict(self) -> None:
        entry = self.policy.evict()
        assert self.held.pop(entry.key[0]) is entry

    def teardown(self) -> None:
        for _ in range(len(getattr(self, "held", ()))):
            self.evict()


PolicyMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestPolicies = PolicyMachine.TestCase
