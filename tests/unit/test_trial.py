"""Poison: a query that kills whoever starts it is found, and everything else is answered."""

from __future__ import annotations

import pytest
from records import FakeRecord
from test_query_partition import World

from anabranch.coordinator.brain import Brain
from anabranch.coordinator.partition import QueryPartition
from anabranch.coordinator.trial import PATIENCE, Court, Trials
from anabranch.events import Answer, Query, decode, encode
from anabranch.kafka.progress import Progress
from anabranch.kafka.progress import encode as encode_progress
from anabranch.kafka.transport import Record


class DiedError(Exception):
    """What a poisoned query does to the process that starts it."""


class Crashing(QueryPartition):
    """A coordinator whose code dies of one query."""

    def _read(self, record: Record) -> None:
        if b"poison" in (record.value or b""):
            raise DiedError
        super()._read(record)


def ask(world: World, *ids: str) -> None:
    for id_ in ids:
        offset = len(world.queries)
        query = Query(id=id_, type="t", params={"n": offset}, layers=["nobody"])
        world.queries.append(FakeRecord(encode(query), offset=offset, timestamp=int(world.now_ms)))


def take_over(world: World) -> tuple[Brain, QueryPartition]:
    """As `ownership` does: raise epoch and counter, commit, read back."""
    restored = world.restored()
    restored.end = len(world.queries)
    progress = restored.progress
    restored.progress = Progress(
        progress.offset,
        progress.completed,
        progress.bounds,
        progress.epoch,
        progress.takeovers + 1,
        progress.trial,
        progress.trials,
    )
    world.commit = (progress.offset, encode_progress(restored.progress)[0])
    brain = world.brain()
    return brain, Crashing(0, brain, restored)


def live(world: World, turns: int = 20) -> None:
    """One owner's life: read, be acknowledged, commit, and so on, until it dies or is idle."""
    brain, partition = take_over(world)
    for _ in range(turns):
        for record in world.queries[partition.position :]:
            partition.on_query(record)
        progress = partition.snapshot()
        world.commit = (progress.offset, encode_progress(progress)[0])
        partition.on_committed(progress)
        out = brain.outbox.take()
        answers = [*out.answers, *(d.answer for d in out.dead_letters if d.answer)]
        for answer in answers:
            world.results.append((answer.offset, decode(answer.value, Answer)))
            partition.on_acked(answer.offset, len(world.results) - 1)


def test_a_poisoned_query_is_quarantined_and_all_others_are_answered() -> None:
    world = World()
    ask(world, "a", "poison", "b", "c")
    deaths = 0
    for _ in range(10):
        try:
            live(world)
        except DiedError:
            deaths += 1
        else:
            break
    answers = {answer.id: answer for _, answer in world.results}
    assert set(answers) == {"a", "poison", "b", "c"}
    error = answers["poison"].error
    assert error is not None
    assert error.code == "quarantined"
    assert len(world.results) == 4
    assert 4 <= deaths <= 7


def test_two_unlucky_takeovers_put_nothing_on_trial() -> None:
    world = World()
    ask(world, "a", "b")
    for _ in range(2):
        _, partition = take_over(world)
        for record in world.queries:
            partition.on_query(record)
        assert partition.snapshot().trial is None


def test_a_suspect_waits_until_the_commit_names_it() -> None:
    world = World()
    ask(world, "a", "b")
    take_over(world)
    take_over(world)
    brain, partition = take_over(world)
    for record in world.queries:
        partition.on_query(record)
    assert not brain.outbox
    progress = partition.snapshot()
    assert (progress.trial, progress.trials) == (0, 1)
    partition.on_committed(progress)
    assert [out.key for out in brain.outbox.take().answers] == [b"a"]


@pytest.mark.parametrize("trials", [1, 2, 3])
def test_the_count_of_trials_survives_its_owners(trials: int) -> None:
    world = World()
    ask(world, "poison")
    for _ in range(2):
        take_over(world)
    for _ in range(trials):
        with pytest.raises(DiedError):
            live(world)
    _, partition = take_over(world)
    partition.on_query(world.queries[0])
    assert partition.snapshot().trials == trials + 1


def test_a_process_tries_one_suspect_at_a_time_whatever_its_partition() -> None:
    court = Court()
    after_three = Progress(0, takeovers=PATIENCE + 1)
    first, second = (Trials(after_three, end=9, court=court) for _ in range(2))
    first.wait(FakeRecord(b"", offset=3))
    second.wait(FakeRecord(b"", offset=5))
    assert (first.offset, second.offset) == (3, None)
    first.survived(3)
    assert (first.offset, second.offset) == (None, 5)
    second.adjourn()  # its partition went to somebody else
    first.wait(FakeRecord(b"", offset=4))
    assert first.offset == 4
