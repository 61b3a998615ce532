"""A repeat has no answer of its own, and is done no sooner than what it repeats."""

from __future__ import annotations

from msgspec import structs
from records import FakeRecord

from anabranch.config.settings import Config, TypeConfig
from anabranch.contract.codec import encode
from anabranch.contract.events import Query
from anabranch.coordinator.progress.restored import Restored
from anabranch.coordinator.progress.window import Bounds, Progress
from anabranch.coordinator.query.partition import QueryPartition
from anabranch.coordinator.wiring import QueryParts
from anabranch.testing.virtual_time import EPOCH_MS

NOW_MS = EPOCH_MS + 1_000.0


class World:
    """A partition that was taken over with this progress, and what `results` says is answered."""

    def __init__(self, progress: Progress, ids: list[str], **answers: int) -> None:
        parts = QueryParts(Config(types={"t": TypeConfig(layers=["a"])}), lambda: NOW_MS)
        restored = Restored(progress, Bounds(), progress.offset + len(ids))
        for id_, offset in answers.items():
            restored.add_answer(offset, id_)
        self.partition: QueryPartition = parts.new_partition(0, restored)
        self.admission = parts.admission
        for offset, id_ in enumerate(ids, progress.offset):
            record = FakeRecord(encode(Query(id_, "t")), offset, timestamp=int(NOW_MS))
            self.partition.on_query(record, NOW_MS)

    def done(self) -> tuple[int, tuple[int, ...]]:
        """What a commit says now."""
        progress = self.partition.progress.snapshot()
        return progress.offset, progress.completed


def test_repeats_of_an_open_query_are_done_with_it() -> None:
    world = World(Progress(0), ["once", "twice", "twice", "twice"])
    assert world.done() == (0, ())
    world.partition.on_acked(1, 0)
    assert world.done() == (0, (1, 2, 3))
    world.partition.on_acked(0, 1)
    assert world.done()[0] == 4


def test_a_repeat_of_what_is_answered_is_done_at_once() -> None:
    world = World(Progress(0), ["once"])
    world.partition.on_acked(0, 0)
    again = FakeRecord(encode(Query("once", "t")), 1, timestamp=int(NOW_MS))
    world.partition.on_query(again, NOW_MS)
    assert world.done()[0] == 2


def test_where_retention_takes_the_first_unanswered_the_repeat_is_asked_by_whoever_is_next() -> (
    None
):
    before = World(Progress(0), ["twice", "once", "twice"]).partition.progress.snapshot()
    world = World(structs.replace(before, epoch=1).within(1, 3), ["once", "twice"])
    assert world.partition.progress.open_count == 2
    assert world.partition.queries.is_open(2), "it is asked itself"


def test_answers_that_lie_about_their_offsets_leave_nobody_waiting() -> None:
    """By them a repeat is the first of others, and comes after them."""
    world = World(Progress(0), ["a", "a", "b", "c", "d"], b=1, c=4)
    world.partition.on_acked(4, 0)
    world.partition.on_acked(0, 1)
    assert world.partition.progress.open_count == 0


def test_a_suspect_waits_for_nobody_whose_trial_is_later() -> None:
    """By an answer that lies the later one is the first; it is started once the other is done."""
    world = World(Progress(0, takeovers=100), ["a", "b"], a=1)
    assert world.done() == (0, ())
    world.partition.on_committed(world.partition.progress.snapshot(), NOW_MS)
    assert world.done() == (1, ())


def test_repeats_that_wait_count_as_open() -> None:
    world = World(Progress(0), ["twice"] * 10)
    assert len(world.admission._sizes) == 10
    world.partition.on_acked(0, 0)
    assert not world.admission._sizes
