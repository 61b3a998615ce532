"""One query, several ways at once: cached, parallel and distributed, and what may go wrong."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import pytest
from hybrid import TTL_MS, Hybrid, found, named


class TestCacheAndParallel:
    def test_only_what_the_cache_lacks_is_asked(self) -> None:
        world = Hybrid()
        world.cached("a")
        id_ = world.ask("a", "b", "c")
        assert world.bundles() == [["b", "c"]]
        world.reply("b", "c")
        assert world.sources(id_) == {"a": "cache", "b": "parallel", "c": "parallel"}
        assert world.answers[id_].status == "complete"

    def test_a_subset_of_a_stored_combination_is_served_without_a_task(self) -> None:
        world = Hybrid()
        world.cached("a", "b", "c")
        id_ = world.ask("c", "a")
        assert not world.sent
        assert world.answers[id_].strategy == "cache"

    def test_combinations_that_were_never_asked_together_are_put_together(self) -> None:
        world = Hybrid()
        world.cached("a")
        world.cached("b")
        id_ = world.ask("a", "b")
        assert set(world.sources(id_).values()) == {"cache"}

    def test_a_layer_stored_up_to_a_smaller_limit_is_fetched_again(self) -> None:
        world = Hybrid()
        world.cached("a", limit=2)
        world.cached("b", limit=50)
        world.ask("a", "b", limit=10)
        assert world.asked() == ["a"]

    def test_a_layer_that_has_no_more_serves_any_limit(self) -> None:
        world = Hybrid()
        world.reply("a", to=world.ask("a", limit=5), complete=True)
        world.ask("a", "b", limit=500)
        assert world.asked() == ["b"]

    def test_an_age_limit_splits_the_cached_part(self) -> None:
        world = Hybrid()
        world.cached("a")
        world.after(5_000)
        world.cached("b")
        world.after(1_000)
        world.ask("a", "b", max_age_ms=2_000)
        assert world.asked() == ["a"]

    def test_an_item_that_both_parts_found_is_one_item(self) -> None:
        world = Hybrid()
        world.reply("a", to=world.ask("a"), items=named(["urn:1", "urn:2"]))
        id_ = world.ask("a", "b")
        world.reply("b", items=named(["urn:2", "urn:3"]))
        by_id = {item.id: item.layers for item in world.answers[id_].items}
        assert by_id == {"urn:1": ("a",), "urn:2": ("a", "b"), "urn:3": ("b",)}

    def test_each_layer_says_how_old_it_is(self) -> None:
        world = Hybrid()
        world.cached("a")
        world.after(700)
        id_ = world.ask("a", "b")
        world.reply("b")
        layers = world.answers[id_].layers
        assert (layers["a"].age_ms, layers["b"].age_ms) == (700, 0)

    def test_an_expired_layer_is_fetched_beside_one_that_is_fresh(self) -> None:
        world = Hybrid()
        world.reply("a", to=world.ask("a"), ttl_ms=100)
        world.cached("b")
        world.after(100)
        world.ask("a", "b")
        assert world.asked() == ["a"]

    def test_nothing_found_is_believed_only_briefly(self) -> None:
        world = Hybrid()
        world.reply("a", to=world.ask("a"), items=[])
        world.cached("b")
        world.after(5_000)
        world.ask("a", "b")
        assert world.asked() == ["a"]

    def test_confidence_falls_with_the_age_of_the_cached_part(self) -> None:
        young, old = Hybrid(), Hybrid()
        confidence = []
        for world, age_ms in ((young, 10), (old, 30_000)):
            world.cached("a")
            world.after(age_ms)
            id_ = world.ask("a", "b")
            world.reply("b")
            confidence.append(world.answers[id_].confidence)
        assert confidence[0] > confidence[1]


class TestCacheAndDistributed:
    def test_each_missing_layer_is_a_task_of_its_own(self) -> None:
        world = Hybrid()
        world.cached("a")
        id_ = world.ask("a", "d", "e")
        assert world.bundles() == [["d"], ["e"]]
        world.reply("e", "d")
        assert world.sources(id_) == {"a": "cache", "d": "distributed", "e": "distributed"}

    def test_tasks_of_one_query_go_to_different_partitions(self) -> None:
        world = Hybrid()
        world.cached("a")
        world.ask("a", "d", "f")
        assert len({sent.partition for sent in world.sent}) == len(world.sent) == 4

    def test_shards_are_spread_and_joined(self) -> None:
        world = Hybrid()
        world.cached("a")
        id_ = world.ask("a", "f")
        assert world.bundles() == [["f"]] * 3
        world.reply("f")
        assert {f"urn:f:{shard}:0" for shard in range(3)} < world.ids(id_)

    def test_a_layer_in_shards_is_cached_once_all_of_them_came(self) -> None:
        world = Hybrid()
        world.cached("f")
        id_ = world.ask("f", "d")
        assert world.asked() == ["d"]
        world.reply("d")
        assert {f"urn:f:{shard}:0" for shard in range(3)} < world.ids(id_)

    def test_a_layer_that_lost_a_shard_is_answered_but_not_cached(self) -> None:
        world = Hybrid()
        world.cached("a")
        id_ = world.ask("a", "f")
        shards = world.sent.copy()
        world.deliver(shards[0], status="error")
        world.deliver(shards[1])
        world.deliver(shards[2])
        assert world.answers[id_].status == "partial"
        assert "1 of 3 shards" in world.answers[id_].missing[0].why
        world.sent.clear()
        world.ask("a", "f")
        assert world.asked() == ["f"]

    def test_a_forced_strategy_governs_only_what_the_cache_lacks(self) -> None:
        world = Hybrid()
        world.cached("a")
        id_ = world.ask("a", "b", "c", strategy="distributed")
        assert world.bundles() == [["b"], ["c"]]
        world.reply("b", "c")
        assert world.sources(id_)["a"] == "cache"
        assert world.answers[id_].strategy == "distributed"

    def test_distributed_results_serve_the_next_question_from_the_cache(self) -> None:
        world = Hybrid()
        world.cached("d", "e", "f")
        id_ = world.ask("e", "f", "d")
        assert set(world.sources(id_).values()) == {"cache"}


class TestParallelAndDistributed:
    def test_each_group_has_the_arm_that_is_cheaper_for_it(self) -> None:
        world = Hybrid()
        id_ = world.ask("a", "b", "d", "e")
        assert world.bundles() == [["a", "b"], ["d"], ["e"]]
        world.reply("a", "b", "d", "e")
        assert world.sources(id_) == {
            "a": "parallel", "b": "parallel", "d": "distributed", "e": "distributed",
        }  # fmt: skip

    def test_the_answer_names_the_arm_of_the_dearest_group_and_both_in_its_reason(self) -> None:
        world = Hybrid()
        id_ = world.ask("a", "d")
        world.reply("a", "d")
        answer = world.answers[id_]
        assert answer.strategy == "distributed"
        assert "parallel for a" in answer.reason
        assert "distributed for d" in answer.reason

    def test_the_estimate_is_that_of_the_dearest_group(self) -> None:
        world = Hybrid()
        both, dear = world.ask("a", "d"), world.ask("d", n=2)
        world.reply("a", "d", "d")
        assert world.answers[both].estimated_ms == world.answers[dear].estimated_ms

    def test_the_answer_waits_for_both_groups(self) -> None:
        world = Hybrid()
        id_ = world.ask("a", "d")
        world.reply("a")
        assert id_ not in world.answers
        world.reply("d")
        assert world.answers[id_].status == "complete"

    def test_any_order_of_arrival_gives_the_same_items(self) -> None:
        answers = []
        for order in permutations("abde"):
            world = Hybrid()
            id_ = world.ask("a", "b", "d", "e")
            world.reply(*order)
            answers.append(world.answers[id_].items)
        assert all(items == answers[0] for items in answers)

    def test_a_lone_worker_gets_its_layers_in_one_task_though_others_are_spread(self) -> None:
        world = Hybrid()
        id_ = world.ask("a", "b", "c", "d")
        world.reply("a", "b", "c", "d")
        assert "io has one worker" in world.answers[id_].reason

    def test_all_tasks_carry_the_same_question_deadline_and_generation(self) -> None:
        world = Hybrid()
        world.invalidate(layer="a")
        world.ask("a", "d", "e", timeout_ms=750)
        tasks = [sent.task for sent in world.sent]
        assert {task.deadline_ms for task in tasks} == {int(world.now_ms) + 750}
        assert {task.generation for task in tasks} == {1}
        assert len({task.key for task in tasks}) == 1

    def test_each_group_has_topics_of_its_own_by_priority(self) -> None:
        world = Hybrid()
        world.ask("a", "d", priority="high")
        assert {sent.topic for sent in world.sent} == {
            "anabranch.tasks.io.high",
            "anabranch.tasks.cpu.high",
        }


class TestAllThree:
    def test_one_query_is_cached_parallel_and_distributed(self) -> None:
        world = Hybrid()
        world.cached("a", "d")
        id_ = world.ask("a", "b", "d", "e")
        assert world.bundles() == [["b"], ["e"]]
        world.reply("e", "b")
        assert world.sources(id_) == {
            "a": "cache", "b": "parallel", "d": "cache", "e": "distributed",
        }  # fmt: skip

    def test_it_is_complete_with_the_last_of_them(self) -> None:
        world = Hybrid()
        world.cached("a")
        id_ = world.ask("a", "b", "f")
        world.reply("b", "f")
        assert world.answers[id_].status == "complete"
        assert not world.answers[id_].missing

    def test_asked_again_all_of_it_comes_from_the_cache(self) -> None:
        world = Hybrid()
        world.cached("a")
        first = world.ask("a", "b", "f")
        world.reply("b", "f")
        again = world.ask("a", "b", "f")
        assert not world.sent
        assert world.ids(again) == world.ids(first)

    def test_at_the_deadline_the_cached_part_is_an_answer_and_the_rest_is_missing(self) -> None:
        world = Hybrid()
        world.cached("a")
        id_ = world.ask("a", "b", "d")
        world.after(1_000)
        answer = world.answers[id_]
        assert answer.status == "partial"
        assert {missing.layer for missing in answer.missing} == {"b", "d"}
        assert world.ids(id_) == {item.id for item in found("a")}

    def test_another_scope_sees_nothing_of_what_is_cached(self) -> None:
        world = Hybrid()
        world.cached("a", "d", scope="one")
        world.ask("a", "d", scope="two")
        assert world.asked() == ["a", "d"]

    def test_past_the_cache_everything_is_fetched_anew_and_kept(self) -> None:
        world = Hybrid()
        world.cached("a", "d")
        world.after(5_000)
        past = world.ask("a", "d", max_age_ms=0)
        world.reply("a", "d")
        assert "cache" not in world.sources(past).values()
        again = world.ask("a", "d")
        assert world.answers[again].layers["d"].age_ms == 0

    def test_cheapest_first_asks_beside_the_cache_only_until_there_is_enough(self) -> None:
        world = Hybrid()
        world.cached("a")
        id_ = world.ask("a", "d", "b", strategy="sequential", min_coverage=0.6, limit=3)
        assert world.asked() == ["b"]
        world.reply("b")
        assert world.statuses(id_) == {"a": "ok", "b": "ok", "d": "skipped"}

    def test_cheapest_first_goes_on_while_there_are_too_few_items(self) -> None:
        world = Hybrid()
        world.cached("a")
        world.ask("a", "b", "c", strategy="sequential", min_coverage=0.6, limit=5)
        world.reply("b")
        assert world.asked() == ["c"]

    def test_only_the_cache_is_asked_if_the_query_says_so(self) -> None:
        world = Hybrid()
        world.cached("a", "d")
        id_ = world.ask("a", "b", "d", "e", strategy="cache")
        assert not world.sent
        assert world.statuses(id_) == {"a": "ok", "b": "skipped", "d": "ok", "e": "skipped"}


class TestErrorRecovery:
    def test_what_failed_is_named_beside_what_came_from_elsewhere(self) -> None:
        world = Hybrid()
        world.cached("a")
        id_ = world.ask("a", "b", "d")
        world.reply("b", status="error")
        world.reply("d")
        assert world.statuses(id_) == {"a": "ok", "b": "error", "d": "ok"}
        assert [(m.layer, m.why) for m in world.answers[id_].missing] == [("b", "b broke")]

    def test_errors_are_not_cached(self) -> None:
        world = Hybrid()
        world.ask("a", "d")
        world.reply("a", status="error")
        world.reply("d")
        world.ask("a", "d")
        assert world.asked() == ["a"]

    def test_when_every_layer_failed_the_answer_gives_each_reason(self) -> None:
        world = Hybrid()
        id_ = world.ask("a", "d")
        world.reply("a", "d", status="error")
        answer = world.answers[id_]
        assert answer.status == "failed"
        assert answer.error is not None
        assert "a broke" in answer.error.message
        assert "d broke" in answer.error.message

    def test_nothing_at_the_deadline_is_an_expired_query(self) -> None:
        world = Hybrid()
        id_ = world.ask("a", "d")
        world.after(1_000)
        error = world.answers[id_].error
        assert error is not None
        assert error.code == "expired"

    def test_a_worker_that_dropped_expired_work_is_a_timeout_of_its_layer(self) -> None:
        world = Hybrid()
        id_ = world.ask("a", "d")
        world.reply("d", status="expired")
        world.reply("a")
        assert world.statuses(id_) == {"a": "ok", "d": "timeout"}

    def test_what_comes_after_the_deadline_feeds_the_cache_and_nothing_else(self) -> None:
        world = Hybrid()
        id_ = world.ask("a", "d")
        late = world.sent[-1]
        world.after(1_000)
        failed = world.answers[id_]
        world.deliver(late)
        assert world.answers[id_] is failed
        world.ask(late.slot.layer)
        assert world.parts.counters.late_partials == 1
        assert world.sources("q0.1") == {late.slot.layer: "cache"}

    def test_a_repeated_partial_counts_once(self) -> None:
        world = Hybrid()
        id_ = world.ask("f", "a")
        shards = [sent for sent in world.sent if sent.slot.layer == "f"]
        world.reply("a")
        for sent in shards[:2]:
            world.deliver(sent)
            world.deliver(sent, items=named(["urn:again"]))
        assert id_ not in world.answers
        world.deliver(shards[2])
        assert world.answers[id_].layers["f"].count == 6
        assert "urn:again" not in world.ids(id_)

    def test_a_layer_that_nobody_announced_costs_only_itself(self) -> None:
        world = Hybrid()
        world.cached("a")
        id_ = world.ask("a", "b", "unknown")
        world.after(500)
        world.reply("b")
        assert world.statuses(id_) == {"a": "ok", "b": "ok", "unknown": "skipped"}
        assert "announced" in world.answers[id_].missing[0].why

    def test_a_group_without_topics_is_sent_nothing(self) -> None:
        world = Hybrid()
        world.parts.registry.topics_exist("cpu", 0)
        id_ = world.ask("a", "d")
        world.after(500)
        world.reply("a")
        assert world.statuses(id_) == {"a": "ok", "d": "skipped"}

    def test_a_partial_for_another_query_at_the_same_offset_does_not_count(self) -> None:
        world = Hybrid()
        id_ = world.ask("a", "d")
        (sent,) = (sent for sent in world.sent if sent.slot.layer == "a")
        world.deliver(sent, query="somebody else's")
        world.reply("d")
        assert id_ not in world.answers

    def test_a_partial_under_another_questions_key_is_not_kept_under_it(self) -> None:
        world = Hybrid()
        id_ = world.ask("a", "d")
        world.reply("a", key="somebody else's")
        world.reply("d")
        assert world.answers[id_].status == "complete"
        world.ask("a", "d")
        assert world.asked() == ["a"]

    def test_an_unreadable_partial_is_a_dead_letter_and_the_query_goes_on(self) -> None:
        world = Hybrid()
        id_ = world.ask("a", "d")
        world.tell(b"{")
        world.reply("a", "d")
        assert world.parts.counters.dead_letters == 1
        assert world.answers[id_].status == "complete"

    def test_work_outstanding_is_settled_with_the_answer(self) -> None:
        world = Hybrid()
        world.ask("a", "d", "f")
        world.reply("a")
        world.after(1_000)
        assert [world.parts.outstanding.total(group) for group in ("io", "cpu")] == [0, 0]


class TestConflicts:
    """A layer that expires soon is fetched beside what is missing: then there are two of it."""

    def ageing(self, *, age_ms: int, ttl_ms: int, items: Sequence[Any]) -> tuple[Hybrid, str]:
        world = Hybrid()
        world.reply("a", to=world.ask("a"), ttl_ms=ttl_ms, items=items)
        world.after(age_ms)
        return world, world.ask("a", "b")

    def test_a_layer_with_little_time_left_is_fetched_beside_a_missing_one(self) -> None:
        world, _ = self.ageing(age_ms=8_000, ttl_ms=10_000, items=found("a"))
        assert world.bundles() == [["a", "b"]]

    def test_a_layer_with_time_left_is_not(self) -> None:
        world, _ = self.ageing(age_ms=7_000, ttl_ms=10_000, items=found("a"))
        assert world.bundles() == [["b"]]

    def test_a_full_hit_refreshes_nothing(self) -> None:
        world, _ = self.ageing(age_ms=8_000, ttl_ms=10_000, items=found("a"))
        world.sent.clear()
        world.ask("a")
        assert not world.sent

    def test_fresh_wins_over_an_old_cached_part(self) -> None:
        world, id_ = self.ageing(age_ms=8_000, ttl_ms=10_000, items=named(["urn:old"]))
        world.reply("a", items=named(["urn:new"]))
        world.reply("b", items=[])
        assert world.ids(id_) == {"urn:new"}

    def test_cache_wins_while_it_is_young(self) -> None:
        world, id_ = self.ageing(age_ms=900, ttl_ms=1_000, items=named(["urn:old"]))
        world.reply("a", items=named(["urn:new"]))
        world.reply("b", items=[])
        assert world.ids(id_) == {"urn:old"}

    def test_fresh_wins_over_a_young_cached_part_if_it_found_much_more(self) -> None:
        world, id_ = self.ageing(age_ms=900, ttl_ms=1_000, items=named(["urn:old"]))
        world.reply("a", items=named(["urn:new", "urn:more"]))
        world.reply("b", items=[])
        assert world.ids(id_) == {"urn:new", "urn:more"}

    def test_the_answer_says_of_a_refreshed_layer_which_part_it_is(self) -> None:
        layers = []
        for age_ms, ttl_ms in ((8_000, 10_000), (900, 1_000)):
            world, id_ = self.ageing(age_ms=age_ms, ttl_ms=ttl_ms, items=named(["urn:old"]))
            world.reply("a", items=named(["urn:new"]), took_ms=7.0)
            world.reply("b")
            layers.append(world.answers[id_].layers["a"])
        assert (layers[0].source, layers[0].age_ms, layers[0].took_ms) == ("sequential", 0, 7.0)
        assert (layers[1].source, layers[1].age_ms, layers[1].took_ms) == ("cache", 900, None)

    @pytest.mark.parametrize(("items", "changed"), [(["urn:old"], 0), (["urn:new"], 1)])
    def test_whether_a_refresh_changed_anything_is_learned(
        self, items: list[str], changed: int
    ) -> None:
        world, _ = self.ageing(age_ms=8_000, ttl_ms=10_000, items=named(["urn:old"]))
        world.reply("a", items=named(items))
        world.reply("b")
        batch = world.parts.selector.telemetry.take_batch()
        assert batch is not None
        rows = [row for row in batch.rows.layers if row.layer == "a"]
        assert sum(row.refreshed for row in rows) == 1
        assert sum(row.changed for row in rows) == changed

    def test_nobody_waits_for_a_refresh(self) -> None:
        world, id_ = self.ageing(age_ms=8_000, ttl_ms=10_000, items=named(["urn:old"]))
        world.reply("b", items=[])
        assert world.ids(id_) == {"urn:old"}

    def test_a_refresh_that_fails_leaves_the_cached_part_in_place(self) -> None:
        world, id_ = self.ageing(age_ms=8_000, ttl_ms=10_000, items=named(["urn:old"]))
        world.reply("a", status="error")
        world.reply("b", items=[])
        assert world.statuses(id_) == {"a": "ok", "b": "ok"}
        assert world.ids(id_) == {"urn:old"}

    def test_a_refresh_that_comes_after_the_answer_renews_the_slot(self) -> None:
        world, _ = self.ageing(age_ms=8_000, ttl_ms=10_000, items=named(["urn:old"]))
        world.reply("b")
        world.reply("a", items=named(["urn:new"]))
        world.after(5_000)
        id_ = world.ask("a")
        assert world.ids(id_) == {"urn:new"}

    def test_one_layer_after_another_refreshes_nothing(self) -> None:
        world = Hybrid()
        world.reply("a", to=world.ask("a"), ttl_ms=10_000)
        world.after(8_000)
        world.ask("a", "b", "c", strategy="sequential")
        assert world.asked() == ["b"]


class TestMemoisedAnswers:
    def memo_hits(self, world: Hybrid) -> int:
        return int(world.parts.cache.stats()["memo_hits"])

    def test_a_repeated_question_is_answered_from_the_merged_items(self) -> None:
        world = Hybrid()
        world.cached("a", "d")
        made, again = world.ask("a", "d"), world.ask("a", "d")
        assert self.memo_hits(world) == 1
        assert world.answers[again].items == world.answers[made].items
        assert world.answers[again].confidence == world.answers[made].confidence

    def test_a_hybrid_answer_is_not_memoised(self) -> None:
        world = Hybrid()
        world.cached("a")
        world.reply("d", to=world.ask("a", "d"))
        world.ask("a", "d")
        assert self.memo_hits(world) == 0

    def test_another_limit_is_merged_anew(self) -> None:
        world = Hybrid()
        world.cached("a", "d")
        world.ask("a", "d", limit=20)
        id_ = world.ask("a", "d", limit=1)
        assert self.memo_hits(world) == 0
        assert len(world.answers[id_].items) == 1

    def test_it_does_not_outlive_an_invalidation_of_one_of_its_layers(self) -> None:
        world = Hybrid()
        world.cached("a", "d")
        world.ask("a", "d")
        world.invalidate(layer="d")
        id_ = world.ask("a", "d")
        world.reply("d", items=named(["urn:new"]))
        assert "urn:new" in world.ids(id_)
        assert "urn:d:0:0" not in world.ids(id_)

    def test_it_does_not_outlive_its_slots(self) -> None:
        world = Hybrid()
        world.cached("a", "d")
        world.ask("a", "d")
        world.after(TTL_MS)
        world.ask("a", "d")
        assert world.asked() == ["a", "d"]

    def test_a_question_for_something_younger_passes_it(self) -> None:
        world = Hybrid()
        world.cached("a", "d")
        world.ask("a", "d")
        world.after(3_000)
        world.ask("a", "d", max_age_ms=2_000)
        assert world.asked() == ["a", "d"]
