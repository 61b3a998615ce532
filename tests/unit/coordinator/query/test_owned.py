"""What was sent for a partition finds it again, and nobody who has it after it was lost."""

from __future__ import annotations

from hybrid import Hybrid

from anabranch.contract.events import TaskLayer


def test_a_claim_that_is_lost_is_not_mistaken_for_the_next_on_the_same_partition() -> None:
    world = Hybrid()
    world.ask("a")
    before = world.partitions[0].claim
    world.lose(0)
    assert world.partitions.find(before) is None
    restored = world._restored(0)
    world.partitions[0] = again = world.parts.new_partition(0, restored)
    again.on_query(world._queries[0][0], world.now_ms)
    assert again.claim.epoch == before.epoch, "the commit was lost too"
    assert world.partitions.find(again.claim) is again
    assert world.partitions.find(before) is None


def test_what_comes_back_for_a_claim_that_is_lost_changes_nothing() -> None:
    world = Hybrid()
    id_ = world.ask("a")
    before = world.partitions[0].claim
    world.lose(0)
    again = world.partitions[0] = world.parts.new_partition(0, world._restored(0))
    again.on_query(world._queries[0][0], world.now_ms)
    world.partitions.acked(before, 0, 7)
    world.partitions.refused(before, 0, [TaskLayer("a", attempt=(1, 1))], "late")
    world.partitions.committed(before, again.progress.snapshot())
    assert again.progress.open_count == 1
    world.sent.clear()
    world.collect()
    world.reply("a", to=id_)
    assert world.answers[id_].status == "complete"
