"""Thousands who ask the same at once: nothing nests, nothing is quadratic, nothing is in vain."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import pytest
from hybrid import TTL_MS, Hybrid
from hypothesis import example, given, settings
from hypothesis import strategies as st

from anabranch.cache.single_flight import Ticket
from anabranch.coordinator.query.open_queries import OpenQueries

MANY = 2_000


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a query was looked at, and compared with another."""
    counted: Counter[str] = Counter()
    for kind, name in ((OpenQueries, "_advance"), (Ticket, "may_join")):
        original = getattr(kind, name)

        def count(*args: object, name: str = name, original: object = original) -> object:
            counted[name] += 1
            return original(*args)  # type: ignore[operator]

        monkeypatch.setattr(kind, name, count)
    return counted


def _ask_all(world: Hybrid, *layers: str, count: int = MANY, **fields: object) -> list[str]:
    return [world.ask(*layers, **fields) for _ in range(count)]


def test_all_are_answered_when_the_slow_layer_is_not_worth_waiting_for(
    steps: Counter[str],
) -> None:
    world = Hybrid()
    ids = _ask_all(world, "a", "d", min_coverage=0.5)
    assert world.asked() == ["a", "d"]
    world.reply("a")
    world.sent.clear()
    world.after(1_000)
    assert {world.answers[id_].status for id_ in ids} == {"partial"}
    assert len(world.sent) <= 1, "tasks for those who are just about to be answered"
    assert steps["_advance"] <= 6 * MANY
    assert steps["may_join"] <= 4 * MANY


def test_at_a_common_deadline_nobody_begins_to_fetch(steps: Counter[str]) -> None:
    world = Hybrid()
    ids = _ask_all(world, "d")
    assert len(world.sent) == 1
    world.sent.clear()
    world.after(1_000)
    assert {world.answers[id_].status for id_ in ids} == {"failed"}
    assert not world.sent
    assert steps["_advance"] <= 2 * MANY
    assert steps["may_join"] <= 2 * MANY


def test_deadlines_one_after_another_cost_few_tasks(steps: Counter[str]) -> None:
    world = Hybrid()
    ids = [world.ask("d", timeout_ms=1_000 + n) for n in range(MANY)]
    world.sent.clear()
    world.after(1_000 + MANY)
    assert {world.answers[id_].status for id_ in ids} == {"failed"}
    assert len(world.sent) == 1, "the one with most time left tries once more, for all"
    assert steps["_advance"] <= 2 * MANY
    assert steps["may_join"] <= 2 * MANY


def test_one_result_serves_all_of_all_partitions() -> None:
    world = Hybrid(partitions=2)
    ids = [world.ask("d", at=n % 2) for n in range(MANY)]
    world.reply("d")
    assert {world.answers[id_].status for id_ in ids} == {"complete"}
    assert len(world.parts.fetches.flights) == 0


def test_a_lost_partition_leaves_its_fetches_to_others() -> None:
    world = Hybrid(partitions=2)
    ids = [world.ask("d", at=n // (MANY // 2)) for n in range(MANY)]
    world.sent.clear()
    world.lose(0)
    assert len(world.sent) == 1
    world.reply("d")
    assert all(world.answers[id_].status == "complete" for id_ in ids[MANY // 2 :])


def test_what_nobody_waits_for_any_more_is_not_fetched_on() -> None:
    world = Hybrid()
    fields = {"min_coverage": 0.5, "strategy": "parallel"}
    ids = [world.ask("a", "d", n=n // 2, **fields) for n in range(200)]
    for _ in range(100):
        world.reply("a")
    world.after(900)
    assert {world.answers[id_].status for id_ in ids} == {"partial"}
    assert all(world.partitions[0].queries.find(n, id_) is None for n, id_ in enumerate(ids))
    assert world.left() == (0, 0, 0)


class TestTheClockIsSet:
    """Forwards and back: nobody waits for nobody, and no fetch is joined that came to nothing."""

    @pytest.mark.parametrize("by_ms", [20_000.0, -20_000.0])
    def test_who_waits_leads_when_the_fetch_fails(self, by_ms: float) -> None:
        world = Hybrid(partitions=2)
        first, second = world.ask("d"), world.ask("d", at=1, timeout_ms=900)
        world.after(100)
        world.set_clock(by_ms)
        world.reply("d", to=first, status="error")
        world.reply("d", to=second)
        assert world.answers[second].status == "complete"

    @pytest.mark.parametrize("by_ms", [20_000.0, -20_000.0])
    def test_a_fetch_whose_query_is_answered_ends_when_it_was_due(self, by_ms: float) -> None:
        world = Hybrid(partitions=2)
        world.ask("a", "d", min_coverage=0.5)
        waiting = world.ask("d", at=1)
        world.reply("a")
        world.after(600)
        world.set_clock(by_ms)
        world.after(600)
        assert world.answers[waiting].status == "failed"
        assert world.left() == (0, 0, 0)
        world.sent.clear()
        world.ask("d", at=1)
        assert world.asked() == ["d"]


class Asked(NamedTuple):
    """A question that everybody asks, by how and when one does."""

    at_ms: int
    timeout_ms: int
    partition: int
    limit: int
    priority: str
    early: bool
    """It wants another layer as well, and is content with that."""


asked = st.builds(
    Asked,
    at_ms=st.sampled_from([0, 0, 1, 20, 80, 150, 300]),
    timeout_ms=st.sampled_from([50, 100, 150, 290, 400, 600]),
    partition=st.integers(0, 1),
    limit=st.sampled_from([10, 20]),
    priority=st.sampled_from(["low", "medium"]),
    early=st.booleans(),
)


@settings(max_examples=150, deadline=None)
@example(
    queries=[Asked(0, 100, 0, 10, "low", False), Asked(0, 290, 1, 10, "low", False)], took_ms=200
)
@given(
    queries=st.lists(asked, min_size=1, max_size=8), took_ms=st.sampled_from([5, 60, 120, 200, 350])
)
def test_who_would_be_answered_alone_is_answered_in_company(
    queries: list[Asked], took_ms: int
) -> None:
    """Whoever it meets: with shorter deadlines, answered early, in partitions that are lost."""
    world = Hybrid(partitions=2)
    start_ms, ids, begun = world.now_ms, {}, {}
    for now_ms in range(1_100):
        for query in [query for query in queries if query.at_ms == now_ms]:
            layers, fields = ("a", "d") if query.early else ("d",), query._asdict()
            for name in ("at_ms", "partition", "early"):
                del fields[name]
            coverage = 0.5 if query.early else 1.0
            id_ = world.ask(*layers, at=query.partition, min_coverage=coverage, **fields)
            ids[id_] = query
        for sent in list(world.sent):
            since_ms = begun.setdefault((sent.bundle, sent.slot.layer), now_ms)
            due_ms = since_ms + (took_ms if sent.slot.layer == "d" else 1)
            late = start_ms + now_ms >= sent.task.deadline_ms
            if now_ms >= due_ms or late:
                world.sent.remove(sent)
                world.deliver(sent, status="timeout" if late else "ok")
        world.after(1)
    for id_, query in ids.items():
        if not query.early and took_ms + 1 < 0.9 * query.timeout_ms:
            assert world.answers[id_].status == "complete"
    assert len(world.parts.fetches.flights) == 0
    assert world.parts.outstanding.total("cpu") == 0


class TestSingleFlight:
    def test_the_same_miss_in_two_partitions_is_fetched_once(self) -> None:
        world = Hybrid(partitions=2)
        first, second = world.ask("a", "d"), world.ask("a", "d", at=1)
        assert len(world.sent) == 2
        world.reply("a", "d")
        assert world.ids(first) == world.ids(second)
        assert world.answers[second].status == "complete"

    def test_a_query_waits_for_what_another_fetches_and_fetches_the_rest_itself(self) -> None:
        world = Hybrid(partitions=2)
        world.ask("a", "d")
        second = world.ask("a", "e", at=1)
        assert [s.slot.layer for s in world.sent if s.task.query == second] == ["e"]
        world.reply("e")
        assert second not in world.answers
        world.reply("a")
        assert world.answers[second].status == "complete"

    def test_a_waiter_fetches_itself_when_the_leader_failed(self) -> None:
        world = Hybrid(partitions=2)
        first, second = world.ask("d"), world.ask("d", at=1)
        world.reply("d", to=first, status="error")
        assert [sent.task.query for sent in world.sent] == [second]
        world.reply("d")
        assert (world.answers[first].status, world.answers[second].status) == ("failed", "complete")

    def test_who_has_more_time_does_not_share_the_deadline_of_who_has_little(self) -> None:
        world = Hybrid(partitions=2)
        world.ask("d", timeout_ms=100)
        waiter = world.ask("d", at=1, timeout_ms=290)
        assert [sent.task.query for sent in world.sent][1:] == [waiter]

    def test_at_the_leaders_deadline_the_waiter_with_most_time_left_leads(self) -> None:
        world = Hybrid(partitions=3)
        world.ask("d", timeout_ms=900)
        world.ask("d", at=1, timeout_ms=400)
        world.after(500)
        long = world.ask("d", at=2, timeout_ms=900)
        assert len(world.sent) == 1
        world.after(400)
        assert [sent.task.query for sent in world.sent][1:] == [long]
        world.reply("d", to=long)
        assert world.answers[long].status == "complete"

    def test_a_waiter_is_answered_at_its_own_deadline(self) -> None:
        world = Hybrid(partitions=2)
        leader = world.ask("a", "d")
        waiter = world.ask("a", "d", at=1, timeout_ms=200)
        world.reply("a")
        world.after(200)
        assert world.statuses(waiter) == {"a": "ok", "d": "timeout"}
        assert leader not in world.answers

    @pytest.mark.parametrize(
        "second",
        [{"max_age_ms": 0}, {"scope": "other"}, {"limit": 30}, {"priority": "high"}, {"n": 2}],
        ids=lambda fields: next(iter(fields)),
    )
    def test_a_flight_that_is_not_good_enough_is_not_joined(self, second: Any) -> None:
        world = Hybrid(partitions=2)
        world.ask("d")
        world.after(1)
        world.ask("d", at=1, **second)
        assert len(world.sent) == 2

    def test_who_asks_after_an_invalidation_does_not_join_a_fetch_from_before(self) -> None:
        world = Hybrid(partitions=2)
        world.ask("d")
        world.invalidate(layer="d")
        world.ask("d", at=1)
        assert [sent.task.generation for sent in world.sent] == [0, 1]

    def test_a_waiter_goes_on_when_the_leaders_partition_is_lost(self) -> None:
        world = Hybrid(partitions=2)
        world.ask("d")
        waiter = world.ask("d", at=1)
        world.lose(0)
        world.reply("d", to=waiter)
        assert world.answers[waiter].status == "complete"

    def test_what_a_leader_needs_no_more_is_fetched_on_for_those_who_wait(self) -> None:
        world = Hybrid(partitions=2)
        leader = world.ask("a", "d", min_coverage=0.5)
        waiter = world.ask("d", at=1)
        world.reply("a")
        world.after(600)
        assert leader in world.answers
        assert [sent.task.query for sent in world.sent] == [leader], "it is fetched twice"
        world.reply("d", to=leader)
        assert world.answers[waiter].status == "complete"
        assert world.parts.outstanding.total("cpu") == 0

    def test_at_the_deadline_of_who_was_answered_early_one_of_the_waiters_leads(self) -> None:
        world = Hybrid(partitions=2)
        leader = world.ask("a", "d", min_coverage=0.5)
        world.after(100)
        waiter = world.ask("d", at=1)
        world.reply("a")
        world.after(899)
        assert leader in world.answers
        assert world.sent[-1].task.query == leader
        world.after(1)
        assert world.sent[-1].task.query == waiter
        world.reply("d", to=waiter)
        assert world.answers[waiter].status == "complete"

    def test_what_fails_after_its_leader_was_answered_is_fetched_by_a_waiter(self) -> None:
        world = Hybrid(partitions=2)
        leader = world.ask("a", "d", min_coverage=0.5)
        waiter = world.ask("d", at=1)
        world.reply("a")
        world.after(600)
        world.reply("d", to=leader, status="error")
        world.reply("d", to=waiter)
        assert world.answers[waiter].status == "complete"
        assert len(world.parts.fetches.flights) == 0

    def test_shards_that_came_before_and_after_their_leader_was_answered_make_one(self) -> None:
        world = Hybrid(partitions=2)
        world.ask("a", "f", min_coverage=0.5)
        waiter = world.ask("f", at=1)
        shards = [sent for sent in world.sent if sent.slot.layer == "f"]
        world.deliver(shards[0])
        world.reply("a")
        world.after(600)
        for sent in shards[1:]:
            world.deliver(sent)
        assert world.answers[waiter].layers["f"].count == 6

    def test_when_the_partition_of_who_was_answered_early_is_lost_a_waiter_leads(self) -> None:
        world = Hybrid(partitions=2)
        world.ask("a", "d", min_coverage=0.5)
        waiter = world.ask("d", at=1)
        world.reply("a")
        world.after(600)
        world.lose(0)
        world.reply("d", to=waiter)
        assert world.answers[waiter].status == "complete"

    def test_nobody_waits_for_a_worker_that_died(self) -> None:
        world = Hybrid(partitions=2)
        leader = world.ask("d")
        waiter = world.ask("d", at=1)
        route = ("cpu", world.sent[0].partition)
        open_query = world.partitions[0].queries.find(0, leader)
        assert open_query is not None
        world.partitions[0].on_death(open_query, {route}, world.now_ms)
        world.collect()
        assert [sent.task.query for sent in world.sent] == [leader, waiter]
        world.ask("d", n=1, at=1)
        assert len(world.sent) == 2, "the new flight is joined"
        world.reply("d", to=waiter)
        assert world.answers[waiter].status == "complete"

    def test_an_error_of_three_is_told_to_all(self) -> None:
        world = Hybrid()
        ids = [world.ask("d") for _ in range(50)]
        for n in range(3):
            assert len(world.sent) == 1
            world.reply("d", status="error", error=f"broke {n}")
        assert {world.answers[id_].layers["d"].error for id_ in ids[3:]} == {"broke 2"}
        assert not world.sent
        assert len(world.parts.fetches.flights) == 0

    def test_what_is_refreshed_beside_a_miss_is_fetched_once(self) -> None:
        world = Hybrid(partitions=2)
        world.cached("a")
        world.after(0.9 * TTL_MS)
        for at in (0, 1):
            world.ask("a", "b", at=at)
        assert sorted(sent.slot.layer for sent in world.sent) == ["a", "b"]
        world.reply("a", "b")
        world.cached("a", n=7)
        world.after(0.9 * TTL_MS)
        world.ask("a", "c", n=7)
        assert world.asked() == ["a", "c"]

    def test_a_shared_execution_teaches_once(self) -> None:
        world = Hybrid(partitions=2)
        batch = world.parts.selector.telemetry.take_batch
        batch()
        ids = [world.ask("a", "d", at=n % 2) for n in range(200)]
        world.after(30)
        world.reply("a", "d")
        assert all(world.answers[id_].status == "complete" for id_ in ids)
        learned = batch()
        assert learned is not None
        assert {row.layer: (row.asked, row.ok) for row in learned.rows.layers} == {
            "a": (1, 1), "d": (1, 1),
        }  # fmt: skip
        assert sum(row.count for row in learned.rows.plans) == 2, "one for each group"
        assert sum(row.count for row in learned.rows.queries) == 200

    def test_one_layer_after_another_goes_on_with_what_another_query_fetched(self) -> None:
        world = Hybrid(partitions=2)
        world.ask("a")
        waiter = world.ask("a", "b", at=1, strategy="sequential")
        assert world.asked() == ["a"]
        world.reply("a")
        assert [(sent.task.query, sent.slot.layer) for sent in world.sent] == [(waiter, "b")]

    def test_shards_are_shared_as_a_whole(self) -> None:
        world = Hybrid(partitions=2)
        world.ask("f")
        waiter = world.ask("f", "a", at=1)
        world.reply("a", "f")
        assert world.answers[waiter].layers["f"].count == 6
