"""Which open slots get an attempt, under which epoch, and how attempts become tasks."""

from __future__ import annotations

import pytest

from anabranch.aggregate.join import Join
from anabranch.contract.events import PartialResult, Source, TaskLayer
from anabranch.dispatch.attempts import next_attempts
from anabranch.dispatch.tasks import bundle, task_layers


def planned(*names: str, source: Source = "parallel", shards: int = 1) -> Join:
    join = Join(names)
    for name in names:
        join.layers[name].plan(source, "io", shards)
    return join


def made(join: Join, epoch: int = 1) -> list[tuple[str, int, tuple[int, int]]]:
    return [(it.layer.name, it.shard, it.number) for it in next_attempts(join, epoch)]


def arrived(join: Join, name: str, shard: int = 0, shards: int = 1) -> None:
    assert join.accept(PartialResult(name, shard=shard, shards=shards), 0.0)


class TestNextAttempts:
    def test_every_open_slot_gets_one_and_asked_again_none(self) -> None:
        join = planned("a", "b", shards=2)
        assert made(join) == [(name, shard, (1, 1)) for name in "ab" for shard in (0, 1)]
        assert made(join) == []

    @pytest.mark.parametrize("epoch", [0, 7])
    def test_the_first_is_made_under_whatever_epoch(self, epoch: int) -> None:
        assert made(planned("a"), epoch) == [("a", 0, (epoch, 1))]

    def test_a_later_epoch_asks_again_for_what_has_not_come_an_earlier_one_never(self) -> None:
        join = planned("a", "b", shards=2)
        made(join, 3)
        arrived(join, "a", 1, 2)
        assert made(join, 2) == []
        assert made(join, 3) == []
        assert made(join, 4) == [("a", 0, (4, 1)), ("b", 0, (4, 1)), ("b", 1, (4, 1))]

    def test_what_was_not_planned_or_has_ended_is_not_asked(self) -> None:
        join = planned("a", "b")
        join.layers["a"].source = "none"
        join.layers["b"].end("skipped", "enough")
        assert made(join) == []

    def test_in_sequence_the_first_open_one_is_asked_alone(self) -> None:
        join = planned("a", "b", "c", source="sequential")
        join.sequence = ("b", "c", "a")
        assert made(join) == [("b", 0, (1, 1))]
        assert made(join) == []
        arrived(join, "b")
        assert made(join) == [("c", 0, (1, 1))]
        arrived(join, "c")
        arrived(join, "a")
        assert made(join) == []

    @pytest.mark.parametrize("sequence", [(), ("a",)])
    def test_what_ages_is_asked_beside_the_missing(self, sequence: tuple[str, ...]) -> None:
        join = planned("a", "old", source="sequential")
        join.sequence = sequence
        join.layers["old"].serve((), complete=True, age_ms=1)
        join.layers["old"].refreshing = True
        assert made(join) == [("a", 0, (1, 1)), ("old", 0, (1, 1))]


class TestTasks:
    def test_one_for_each_group_and_one_for_each_slot_that_is_distributed(self) -> None:
        join = planned("a", "b", "c", "d", "e")
        join.layers["c"].plan("parallel", "cpu", 1)
        join.layers["d"].plan("distributed", "gpu", 2)
        tasks = [
            (group, [(it.layer.name, it.shard) for it in attempts])
            for group, attempts in bundle(next_attempts(join, 1))
        ]
        assert sorted(tasks) == [
            ("cpu", [("c", 0)]),
            ("gpu", [("d", 0)]),
            ("gpu", [("d", 1)]),
            ("io", [("a", 0), ("b", 0), ("e", 0)]),
        ]

    def test_a_slot_travels_with_its_shard_and_the_epoch_of_its_attempt(self) -> None:
        attempts = next_attempts(planned("a", shards=2), 5)
        assert task_layers(attempts) == [TaskLayer("a", n, 2, (5, 1)) for n in (0, 1)]
