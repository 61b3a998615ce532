"""Thousands who ask the same at once: nothing nests, nothing is quadratic, nothing is in vain."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import pytest
from hybrid import Hybrid
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
