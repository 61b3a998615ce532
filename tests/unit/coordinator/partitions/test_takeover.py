"""What a new owner makes of what the one before had begun."""

from __future__ import annotations

from hybrid import Hybrid


class TestTakeover:
    def test_only_what_has_not_arrived_is_sent_again_with_a_higher_epoch(self) -> None:
        world = Hybrid()
        world.cached("a", n=2)
        id_ = world.ask("a", "b", "d", "e")
        epoch = world.sent[0].slot.attempt[0]
        world.reply("b", "d")
        world.take_over()
        assert world.asked() == ["a", "e"]
        assert all(sent.slot.attempt[0] > epoch for sent in world.sent)
        world.reply("a", "e")
        assert world.answers[id_].status == "complete"

    def test_shards_that_arrived_are_not_sent_again(self) -> None:
        world = Hybrid()
        id_ = world.ask("a", "f", max_age_ms=0)
        shards = [sent for sent in world.sent if sent.slot.layer == "f"]
        world.deliver(shards[1])
        world.reply("a")
        world.take_over()
        assert [(sent.slot.layer, sent.slot.shard) for sent in world.sent] == [("f", 0), ("f", 2)]
        world.reply("f")
        assert world.answers[id_].layers["f"].count == 6

    def test_a_result_of_the_owner_befores_attempt_counts(self) -> None:
        world = Hybrid()
        id_ = world.ask("a", "d")
        before = world.sent.copy()
        world.take_over()
        for sent in before:
            world.deliver(sent)
        assert world.answers[id_].status == "complete"

    def test_what_was_answered_is_not_answered_again(self) -> None:
        world = Hybrid()
        world.cached("a", "d")
        world.take_over()
        assert not world.sent
        assert len(world.answers) == 1

    def test_the_cache_is_filled_again_from_what_workers_said(self) -> None:
        world = Hybrid()
        world.cached("a", "d")
        world.take_over()
        id_ = world.ask("a", "d", "e")
        assert world.asked() == ["e"]
        world.reply("e")
        assert world.sources(id_) == {"a": "cache", "d": "cache", "e": "distributed"}

    def test_what_was_invalidated_before_the_takeover_stays_so(self) -> None:
        world = Hybrid()
        world.cached("a", "d")
        world.invalidate(layer="d")
        world.take_over()
        world.ask("a", "d")
        assert world.asked() == ["d"]

    def test_waiters_and_leaders_alike_are_answered(self) -> None:
        world = Hybrid(partitions=2)
        ids = [world.ask("a", "d"), world.ask("a", "d", at=1)]
        world.reply("a")
        world.take_over()
        world.reply(*world.asked())
        assert {world.answers[id_].status for id_ in ids} == {"complete"}

    def test_a_query_whose_time_has_run_out_meanwhile_is_answered_with_what_came(self) -> None:
        world = Hybrid()
        id_ = world.ask("a", "d")
        world.reply("a")
        world.now_ms += 1_000
        world.take_over()
        assert world.statuses(id_) == {"a": "ok", "d": "timeout"}
        assert not world.sent
