"""What a takeover takes for answered and arrived: by a query's offset and its id."""

from __future__ import annotations

import pytest
from hybrid import Hybrid
from records import FakeRecord

from anabranch.contract.codec import encode
from anabranch.contract.events import Partial, PartialResult, Query
from anabranch.coordinator.partitions.recovery import progress_of
from anabranch.coordinator.progress.metadata import encode as encode_progress
from anabranch.coordinator.progress.restored import Restored
from anabranch.coordinator.progress.window import Bounds, Progress
from anabranch.errors import TopicError
from anabranch.kafka.transport import Committed


def query(id_: str, offset: int = 0, **fields: int) -> FakeRecord:
    return FakeRecord(encode(Query(id=id_, type="t", params={})), offset=offset, **fields)


def restored(progress: Progress | None = None) -> Restored:
    return Restored(progress or Progress(0), Bounds(7, 8), 10)


def partial(id_: str, offset: int) -> Partial:
    results = [PartialResult("a")]
    return Partial(id_, offset, "t", "", 20, "", 0, "w", results)


def test_an_answer_answers_the_query_it_names() -> None:
    read = restored()
    read.add_answer(0, "q")
    assert read.is_answered(query("q"))
    read.add_answer(0, "q")
    assert not read.is_answered(query("another", 0)), "a topic made anew"
    assert not read.is_answered(query("q", 1))
    assert list(read.ids(0.0)) == []


def test_an_unreadable_query_is_answered_under_the_id_that_could_be_read() -> None:
    read = restored()
    read.add_answer(3, "x")
    assert read.is_answered(FakeRecord(b'{"id": "x", "type"', offset=3))


def test_a_partial_goes_to_the_query_it_names_once() -> None:
    read = restored()
    read.add_partial(FakeRecord(b""), partial("q", 4))
    read.arrive(FakeRecord(b""), partial("old", 4))
    assert len(read.arrived(4, "q")) == 1
    assert read.arrived(4, "q") == []


def test_bounds_are_inherited_by_what_the_owner_before_has_read() -> None:
    before = Bounds(1, 2)
    read = restored(Progress(0, completed=(2,), bounds=before))
    read.add_answer(5, "q")
    read.add_partial(FakeRecord(b""), partial("q", 6))
    read.arrive(FakeRecord(b""), partial("later", 9))
    assert [read.bounds_at(offset) for offset in (0, 6, 7)] == [before, before, None]


def commit(offset: int) -> Committed:
    progress = Progress(offset, completed=(offset + 1,), bounds=Bounds(3, 4), epoch=9)
    return Committed(offset, encode_progress(progress)[0])


def test_a_commit_beyond_the_end_is_of_another_topic() -> None:
    assert progress_of(commit(10), 0, end=10).bounds == Bounds(3, 4)
    anew = progress_of(commit(11), 2, end=10)
    assert anew == Progress(2, bounds=Bounds(), epoch=9), "what is answered is found in results"


def test_retention_moves_the_watermark() -> None:
    assert progress_of(commit(10), 20, end=30).offset == 20
    assert progress_of(None, 20, end=30).offset == 20


def test_other_queries_at_offsets_that_are_answered_are_answered_too() -> None:
    world = Hybrid()
    world.cached("a", "b")
    world._queries[0].clear()
    world.take_over()
    id_ = world.ask("a", "b", id="new", n=2)
    world.reply("a", "b", to=id_)
    assert world.answers["new"].status == "complete"


def test_a_record_at_an_old_offset_is_an_error() -> None:
    world = Hybrid()
    world.ask("a", n=1)
    partition = world.partitions[0]
    with pytest.raises(TopicError, match="goes on at 0, but was read up to 1"):
        partition.on_query(world._queries[0][0], world.now_ms)


def test_what_is_kept_for_queries_to_be_read_is_bounded_and_nobody_waits_for_the_rest() -> None:
    read = Restored(Progress(3, completed=(5,)), Bounds(), end=99, max_bytes=1_000)
    large = FakeRecord(bytes(400))
    for offset in (0, 2, 5):
        read.arrive(large, partial("done", offset))
    for offset in (3, 4, 6):
        read.arrive(large, partial("q", offset))
    assert [len(read.arrived(offset, "q")) for offset in (0, 2, 5, 6)] == [0, 0, 0, 0]
    assert len(read.arrived(3, "q")) == 1
    read.arrive(large, partial("q", 6))
    assert len(read.arrived(6, "q")) == 1, "there is room again"
    read.add_answer(4, "q")
    assert read.arrived(4, "q") == [], "it is answered"
