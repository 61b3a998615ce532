"""Poison: a query that kills whoever starts it is found, and everything else is answered."""

from __future__ import annotations

from unittest.mock import patch

import pytest
from msgspec import structs
from partition_world import World
from records import FakeRecord

from anabranch.contract.codec import decode, encode
from anabranch.contract.events import Answer, Query
from anabranch.coordinator import wiring
from anabranch.coordinator.progress.metadata import decode as decode_progress
from anabranch.coordinator.progress.metadata import encode as encode_progress
from anabranch.coordinator.progress.suspects import MAX_TRIALS, PATIENCE, SuspectQueue, Suspects
from anabranch.coordinator.progress.window import Progress
from anabranch.coordinator.query.partition import QueryPartition
from anabranch.coordinator.wiring import QueryParts
from anabranch.kafka.transport import Record


class DiedError(Exception):
    """What a poisoned query does to the process that starts it."""


class Crashing(QueryPartition):
    """A coordinator whose code dies of one query."""

    def _read(self, record: Record, now_ms: float) -> None:
        if b"poison" in (record.value or b""):
            raise DiedError
        super()._read(record, now_ms)


def ask(world: World, *ids: str) -> None:
    for id_ in ids:
        offset = len(world.queries)
        query = Query(id=id_, type="t", params={"n": offset}, layers=["nobody"], strategy="cache")
        world.queries.append(FakeRecord(encode(query), offset=offset, timestamp=int(world.now_ms)))


def take_over(world: World) -> tuple[QueryParts, QueryPartition]:
    """As `Takeover` does: raise epoch and counter, commit, read back."""
    restored = world.restored()
    restored.end = len(world.queries)
    progress = restored.progress
    restored.progress = structs.replace(progress, takeovers=progress.takeovers + 1)
    world.commit = (progress.offset, encode_progress(restored.progress)[0])
    parts = world.parts()
    with patch.object(wiring, "QueryPartition", Crashing):
        parts.owned[0] = parts.new_partition(0, restored)
    return parts, parts.owned[0]


def live(world: World, turns: int = 20) -> int:
    """One owner's life: read, be acknowledged, commit, and so on, until it dies or is idle.

    How many commits it took until all were answered.
    """
    parts, partition = take_over(world)
    needed = 0
    for turn in range(turns):
        for record in world.queries[partition.progress.position :]:
            partition.on_query(record, world.now_ms)
        commit(world, partition)
        if acknowledge(world, parts, partition):
            needed = turn + 1
    return needed


def commit(world: World, partition: QueryPartition) -> None:
    progress = partition.progress.snapshot()
    world.commit = (progress.offset, encode_progress(progress)[0])
    partition.on_committed(progress, world.now_ms)


def acknowledge(world: World, parts: QueryParts, partition: QueryPartition) -> list[str]:
    """What was answered."""
    out = parts.outbox.take()
    answers = [*out.answers, *(d.answer for d in out.dead_letters if d.answer)]
    for answer in answers:
        world.results.append((answer.offset, decode(answer.value, Answer)))
        partition.on_acked(answer.offset, len(world.results) - 1)
    return [answer.key.decode() for answer in answers]


def lives(world: World, turns: int = 20) -> int:
    """Owners one after another, until one lives; how many died."""
    for deaths in range(100):
        try:
            live(world, turns)
        except DiedError:
            continue
        return deaths
    raise AssertionError("it killed a hundred of them")


def test_a_poisoned_query_is_quarantined_and_all_others_are_answered() -> None:
    world = World()
    ask(world, "a", "poison", "b", "c")
    deaths = lives(world)
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
            partition.on_query(record, world.now_ms)
        assert partition.progress.snapshot().trial is None


def test_a_suspect_waits_until_the_commit_names_it() -> None:
    world = World()
    ask(world, "a", "b")
    take_over(world)
    take_over(world)
    parts, partition = take_over(world)
    for record in world.queries:
        partition.on_query(record, world.now_ms)
    assert not parts.outbox
    progress = partition.progress.snapshot()
    assert (progress.trial, progress.trials) == (0, 1)
    partition.on_committed(progress, world.now_ms)
    assert [out.key for out in parts.outbox.take().answers] == [b"a"]


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
    partition.on_query(world.queries[0], world.now_ms)
    assert partition.progress.snapshot().trials == trials + 1


def test_a_poisoned_query_among_a_thousand_is_found_and_only_that_one() -> None:
    world = World()
    ask(world, *(f"a{n}" for n in range(700)), "poison", *(f"b{n}" for n in range(300)))
    deaths = lives(world, turns=40)
    quarantined = {answer.id for _, answer in world.results if answer.error.code == "quarantined"}  # type: ignore[union-attr]
    assert quarantined == {"poison"}
    assert len(world.results) == len({answer.id for _, answer in world.results}) == 1_001
    # To notice, to find its group of 250 and halve that, and three of it alone.
    assert deaths <= PATIENCE + 1 + 8 + MAX_TRIALS + 1


@pytest.mark.parametrize(("suspects", "commits"), [(1_000, 12), (20_000, 90)])
def test_a_backlog_of_innocent_suspects_takes_some_commits(suspects: int, commits: int) -> None:
    world = World()
    ask(world, *(f"q{n}" for n in range(suspects)))
    for _ in range(PATIENCE):
        take_over(world)
    assert live(world, turns=100) <= commits
    assert len(world.results) == suspects


def test_new_queries_do_not_wait_for_suspects_nor_what_the_owner_cannot_have_had_open() -> None:
    world = World()
    ask(world, *(f"q{n}" for n in range(20_100)))
    for _ in range(PATIENCE):
        take_over(world)
    parts, partition = take_over(world)
    ask(world, "new")
    for record in world.queries:
        partition.on_query(record, world.now_ms)
    answered = acknowledge(world, parts, partition)
    assert answered == [*(f"q{n}" for n in range(20_000, 20_100)), "new"]
    assert not parts.admission.is_full, "those who wait for their trial keep nobody from being read"


def test_one_that_kills_late_is_found_whatever_is_answered_beside_it() -> None:
    world = World()
    query = Query(id="late", type="t", layers=["a"], timeout_ms=60_000)
    world.queries.append(FakeRecord(encode(query), offset=0, timestamp=int(world.now_ms)))
    for life in range(PATIENCE):
        parts, partition = take_over(world)
        ask(world, f"q{life}")
        for record in world.queries:
            partition.on_query(record, world.now_ms)
        assert acknowledge(world, parts, partition) == [f"q{life}"]
        commit(world, partition)
    _, partition = take_over(world)
    for record in world.queries:
        partition.on_query(record, world.now_ms)
    assert partition.progress.snapshot().trial == 0


def test_suspects_that_wait_are_bounded_in_bytes_too_over_all_partitions() -> None:
    queue, after_three = SuspectQueue(max_bytes=10), Progress(0, takeovers=PATIENCE + 1)
    first, second = (Suspects(after_three, end=99, queue=queue, most=99) for _ in range(2))
    for offset in range(3):
        assert first.must_wait(offset)
        first.hold_back(FakeRecord(b"1234", offset=offset))
    assert not first.must_wait(3)
    assert not second.must_wait(0)
    offset, trials, group = first.trial
    assert len(first.to_start(Progress(0, trial=offset, trials=trials, group=group))) == 1
    assert second.must_wait(0)
    second.hold_back(FakeRecord(b"1234", offset=0))
    assert not second.must_wait(1)
    first.abandon()
    assert second.must_wait(1)
    first.abandon()
    second.abandon()
    assert queue.has_room


def test_what_its_owner_did_not_survive_is_tried_by_halves() -> None:
    suspects = Suspects(
        Progress(0, trial=4, trials=1, group=8), end=99, queue=SuspectQueue(), most=99
    )
    groups = []
    for offset in range(4, 40):
        suspects.hold_back(FakeRecord(b"", offset=offset))
    for _ in range(4):
        offset, count, group = suspects.trial
        started = suspects.to_start(Progress(0, trial=offset, trials=count, group=group))
        groups.append([record.offset for record in started])
        for record in started:
            suspects.survived(record.offset)
    assert groups == [[4, 5, 6, 7], [8, 9, 10, 11], [*range(12, 20)], [*range(20, 36)]]


def test_a_death_in_the_middle_of_a_trial_is_remembered_whatever_was_answered_beside_it() -> None:
    world = World()
    ask(world, "poison", "b")
    for _ in range(PATIENCE):
        take_over(world)
    with pytest.raises(DiedError):
        live(world)
    world.commit = (
        world.commit[0],
        encode_progress(structs.replace(decode_progress(*world.commit), takeovers=0))[0],
    )
    parts, partition = take_over(world)
    commit(world, partition)  # before anything is read
    for record in world.queries:
        partition.on_query(record, world.now_ms)
    assert not parts.outbox
    assert partition.progress.snapshot().trials == 2


def test_a_rebalance_in_the_middle_of_a_trial_is_no_death() -> None:
    world = World()
    ask(world, "a")
    for _ in range(PATIENCE):
        take_over(world)
    for _ in range(2 * MAX_TRIALS):
        _, partition = take_over(world)
        partition.on_query(world.queries[0], world.now_ms)
        partition.progress.clear_suspicion()
        commit(world, partition)
    assert partition.progress.snapshot().trials == 0
    live(world)
    ((_, answer),) = world.results
    assert answer.error is not None
    assert answer.error.code == "unavailable"


def test_a_process_tries_one_group_at_a_time_whatever_its_partition() -> None:
    queue = SuspectQueue()
    after_three = Progress(0, takeovers=PATIENCE + 1)
    first, second = (Suspects(after_three, end=9, queue=queue, most=9) for _ in range(2))
    first.hold_back(FakeRecord(b"", offset=3))
    second.hold_back(FakeRecord(b"", offset=5))
    assert (first.trial[0], second.trial[0]) == (3, None)
    first.to_start(Progress(0, trial=3, trials=1))
    first.survived(3)
    assert (first.trial[0], second.trial[0]) == (None, 5)
    second.end_trial()  # its partition went to somebody else
    first.hold_back(FakeRecord(b"", offset=4))
    assert first.trial[0] == 4
