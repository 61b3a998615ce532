"""Thousands who ask the same at once: nothing nests, nothing is quadratic, nothing is in vain."""

from __future__ import annotations

from collections import Counter

import pytest
from hybrid import Hybrid

from anabranch.cache.single_flight import Ticket
from anabranch.coordinator.open_queries import OpenQueries

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
    assert len(world.brain.sharing.flights) == 0


def test_a_lost_partition_leaves_its_fetches_to_others() -> None:
    world = Hybrid(partitions=2)
    ids = [world.ask("d", at=n // (MANY // 2)) for n in range(MANY)]
    world.sent.clear()
    world.lose(0)
    assert len(world.sent) == 1
    world.reply("d")
    assert all(world.answers[id_].status == "complete" for id_ in ids[MANY // 2 :])
