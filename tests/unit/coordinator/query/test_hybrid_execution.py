"""One query, several ways at once: cached, parallel and distributed, and what may go wrong."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import pytest
from hybrid import TTL_MS, Hybrid, found, named

from anabranch.config.settings import SelectConfig
from anabranch.contract.events import AnswerLayer
from anabranch.contract.telemetry import ExecutionTelemetry


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


class TestSingleFlight:
    def test_the_same_miss_in_two_partitions_is_fetched_once(self) -> None:
        world = Hybrid(partitions=2)
        first, second = world.ask("a", "d"), world.ask("a", "d", at=1)
        assert len(world.sent) == 2
        world.reply("a", "d")
        assert world.ids(first) == world.ids(second)
        assert world.answers[second].status == "complete"

    def test_a_query_waits_for_what_another_fetches_and_fetches_the_rest_itself(self) -> None:
        world = Hybrid(partitions=2)
        world.ask("a", "d")
        second = world.ask("a", "e", at=1)
        assert [s.slot.layer for s in world.sent if s.task.query == second] == ["e"]
        world.reply("e")
        assert second not in world.answers
        world.reply("a")
        assert world.answers[second].status == "complete"

    def test_a_waiter_fetches_itself_when_the_leader_failed(self) -> None:
        world = Hybrid(partitions=2)
        first, second = world.ask("d"), world.ask("d", at=1)
        world.reply("d", to=first, status="error")
        assert [sent.task.query for sent in world.sent] == [second]
        world.reply("d")
        assert (world.answers[first].status, world.answers[second].status) == ("failed", "complete")

    def test_who_has_more_time_does_not_share_the_deadline_of_who_has_little(self) -> None:
        world = Hybrid(partitions=2)
        world.ask("d", timeout_ms=100)
        waiter = world.ask("d", at=1, timeout_ms=290)
        assert [sent.task.query for sent in world.sent][1:] == [waiter]

    def test_at_the_leaders_deadline_the_waiter_with_most_time_left_leads(self) -> None:
        world = Hybrid(partitions=3)
        world.ask("d", timeout_ms=900)
        world.ask("d", at=1, timeout_ms=400)
        world.after(500)
        long = world.ask("d", at=2, timeout_ms=900)
        assert len(world.sent) == 1
        world.after(400)
        assert [sent.task.query for sent in world.sent][1:] == [long]
        world.reply("d", to=long)
        assert world.answers[long].status == "complete"

    def test_a_waiter_is_answered_at_its_own_deadline(self) -> None:
        world = Hybrid(partitions=2)
        leader = world.ask("a", "d")
        waiter = world.ask("a", "d", at=1, timeout_ms=200)
        world.reply("a")
        world.after(200)
        assert world.statuses(waiter) == {"a": "ok", "d": "timeout"}
        assert leader not in world.answers

    @pytest.mark.parametrize(
        "second",
        [{"max_age_ms": 0}, {"scope": "other"}, {"limit": 30}, {"priority": "high"}, {"n": 2}],
        ids=lambda fields: next(iter(fields)),
    )
    def test_a_flight_that_is_not_good_enough_is_not_joined(self, second: Any) -> None:
        world = Hybrid(partitions=2)
        world.ask("d")
        world.after(1)
        world.ask("d", at=1, **second)
        assert len(world.sent) == 2

    def test_who_asks_after_an_invalidation_does_not_join_a_fetch_from_before(self) -> None:
        world = Hybrid(partitions=2)
        world.ask("d")
        world.invalidate(layer="d")
        world.ask("d", at=1)
        assert [sent.task.generation for sent in world.sent] == [0, 1]

    def test_a_waiter_goes_on_when_the_leaders_partition_is_lost(self) -> None:
        world = Hybrid(partitions=2)
        world.ask("d")
        waiter = world.ask("d", at=1)
        world.lose(0)
        world.reply("d", to=waiter)
        assert world.answers[waiter].status == "complete"

    def test_what_a_leader_needs_no_more_is_fetched_on_for_those_who_wait(self) -> None:
        world = Hybrid(partitions=2)
        leader = world.ask("a", "d", min_coverage=0.5)
        waiter = world.ask("d", at=1)
        world.reply("a")
        world.after(600)
        assert leader in world.answers
        assert [sent.task.query for sent in world.sent] == [leader], "it is fetched twice"
        world.reply("d", to=leader)
        assert world.answers[waiter].status == "complete"
        assert world.parts.outstanding.total("cpu") == 0

    def test_at_the_deadline_of_who_was_answered_early_one_of_the_waiters_leads(self) -> None:
        world = Hybrid(partitions=2)
        leader = world.ask("a", "d", min_coverage=0.5)
        world.after(100)
        waiter = world.ask("d", at=1)
        world.reply("a")
        world.after(899)
        assert leader in world.answers
        assert world.sent[-1].task.query == leader
        world.after(1)
        assert world.sent[-1].task.query == waiter
        world.reply("d", to=waiter)
        assert world.answers[waiter].status == "complete"

    def test_what_fails_after_its_leader_was_answered_is_fetched_by_a_waiter(self) -> None:
        world = Hybrid(partitions=2)
        leader = world.ask("a", "d", min_coverage=0.5)
        waiter = world.ask("d", at=1)
        world.reply("a")
        world.after(600)
        world.reply("d", to=leader, status="error")
        world.reply("d", to=waiter)
        assert world.answers[waiter].status == "complete"
        assert len(world.parts.fetches.flights) == 0

    def test_shards_that_came_before_and_after_their_leader_was_answered_make_one(self) -> None:
        world = Hybrid(partitions=2)
        world.ask("a", "f", min_coverage=0.5)
        waiter = world.ask("f", at=1)
        shards = [sent for sent in world.sent if sent.slot.layer == "f"]
        world.deliver(shards[0])
        world.reply("a")
        world.after(600)
        for sent in shards[1:]:
            world.deliver(sent)
        assert world.answers[waiter].layers["f"].count == 6

    def test_when_the_partition_of_who_was_answered_early_is_lost_a_waiter_leads(self) -> None:
        world = Hybrid(partitions=2)
        world.ask("a", "d", min_coverage=0.5)
        waiter = world.ask("d", at=1)
        world.reply("a")
        world.after(600)
        world.lose(0)
        world.reply("d", to=waiter)
        assert world.answers[waiter].status == "complete"

    def test_nobody_waits_for_a_worker_that_died(self) -> None:
        world = Hybrid(partitions=2)
        leader = world.ask("d")
        waiter = world.ask("d", at=1)
        route = ("cpu", world.sent[0].partition)
        open_query = world.partitions[0].queries.find(0, leader)
        assert open_query is not None
        world.partitions[0].on_death(open_query, {route}, world.now_ms)
        world.collect()
        assert [sent.task.query for sent in world.sent] == [leader, waiter]
        world.ask("d", n=1, at=1)
        assert len(world.sent) == 2, "the new flight is joined"
        world.reply("d", to=waiter)
        assert world.answers[waiter].status == "complete"

    def test_an_error_of_three_is_told_to_all(self) -> None:
        world = Hybrid()
        ids = [world.ask("d") for _ in range(50)]
        for n in range(3):
            assert len(world.sent) == 1
            world.reply("d", status="error", error=f"broke {n}")
        assert {world.answers[id_].layers["d"].error for id_ in ids[3:]} == {"broke 2"}
        assert not world.sent
        assert len(world.parts.fetches.flights) == 0

    def test_what_is_refreshed_beside_a_miss_is_fetched_once(self) -> None:
        world = Hybrid(partitions=2)
        world.cached("a")
        world.after(0.9 * TTL_MS)
        for at in (0, 1):
            world.ask("a", "b", at=at)
        assert sorted(sent.slot.layer for sent in world.sent) == ["a", "b"]
        world.reply("a", "b")
        world.cached("a", n=7)
        world.after(0.9 * TTL_MS)
        world.ask("a", "c", n=7)
        assert world.asked() == ["a", "c"]

    def test_a_shared_execution_teaches_once(self) -> None:
        world = Hybrid(partitions=2)
        batch = world.parts.selector.telemetry.take_batch
        batch()
        ids = [world.ask("a", "d", at=n % 2) for n in range(200)]
        world.after(30)
        world.reply("a", "d")
        assert all(world.answers[id_].status == "complete" for id_ in ids)
        learned = batch()
        assert learned is not None
        assert {row.layer: (row.asked, row.ok) for row in learned.rows.layers} == {
            "a": (1, 1), "d": (1, 1),
        }  # fmt: skip
        assert sum(row.count for row in learned.rows.plans) == 2, "one for each group"
        assert sum(row.count for row in learned.rows.queries) == 200

    def test_one_layer_after_another_goes_on_with_what_another_query_fetched(self) -> None:
        world = Hybrid(partitions=2)
        world.ask("a")
        waiter = world.ask("a", "b", at=1, strategy="sequential")
        assert world.asked() == ["a"]
        world.reply("a")
        assert [(sent.task.query, sent.slot.layer) for sent in world.sent] == [(waiter, "b")]

    def test_shards_are_shared_as_a_whole(self) -> None:
        world = Hybrid(partitions=2)
        world.ask("f")
        waiter = world.ask("f", "a", at=1)
        world.reply("a", "f")
        assert world.answers[waiter].layers["f"].count == 6


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


class TestLearnedLayers:
    def test_a_layer_that_never_contributes_is_left_out_and_said_to_be(self) -> None:
        world = Hybrid()
        world.learn("d", asked=200, used=0)
        id_ = world.ask(type="learned")
        assert world.asked() == ["a", "b"]
        world.reply("a", "b")
        answer = world.answers[id_]
        assert answer.layers["d"] == AnswerLayer(status="skipped", error="not selected")
        assert answer.status == "complete"
        assert not answer.missing

    def test_who_names_layers_gets_them(self) -> None:
        world = Hybrid()
        world.learn("d", asked=200, used=0)
        world.ask("a", "d", type="learned")
        assert world.asked() == ["a", "d"]

    def test_a_type_that_does_not_learn_asks_all_its_layers(self) -> None:
        world = Hybrid()
        world.learn("b", asked=200, used=0, type_="t")
        world.ask(type="t")
        assert world.asked() == ["a", "b"]

    def test_some_queries_try_a_left_out_layer(self) -> None:
        world = Hybrid()
        world.learn("d", asked=200, used=0)
        for n in range(200):
            world.ask(type="learned", n=n)
        tried = {sent.task.query for sent in world.sent if sent.slot.layer == "d"}
        assert 0 < len(tried) < 20

    def test_a_try_is_marked_in_the_telemetry(self, monkeypatch: pytest.MonkeyPatch) -> None:
        world = Hybrid()
        world.learn("d", asked=200, used=0)
        records: list[ExecutionTelemetry] = []
        monkeypatch.setattr(world.parts.selector, "observe", records.append)
        for n in range(200):
            world.ask(type="learned", n=n)
        asked = {sent.task.query for sent in world.sent if sent.slot.layer == "d"}
        world.after(1_000)
        marked = {r.query: [x.layer for x in r.layers if x.tried] for r in records}
        assert {query for query, layers in marked.items() if layers == ["d"]} == asked
        assert {tuple(layers) for layers in marked.values()} == {(), ("d",)}

    def test_what_was_not_selected_is_not_served_from_the_cache_either(self) -> None:
        world = Hybrid()
        world.cached("d", type="learned")
        world.learn("d", asked=200, used=0)
        id_ = world.ask(type="learned")
        world.reply("a", "b")
        assert world.sources(id_)["d"] == "none"


class TestCoverageAndPatience:
    def test_enough_from_cache_and_parallel_ends_the_wait_for_distributed(self) -> None:
        world = Hybrid()
        world.cached("a")
        id_ = world.ask("a", "b", "d", min_coverage=0.6)
        world.reply("b")
        assert id_ not in world.answers, "it waits a share of the remaining time first"
        world.after(500)
        assert world.statuses(id_) == {"a": "ok", "b": "ok", "d": "skipped"}
        assert world.answers[id_].status == "partial"

    def test_what_comes_within_that_time_is_in_the_answer(self) -> None:
        world = Hybrid()
        id_ = world.ask("a", "d", min_coverage=0.5)
        world.reply("a")
        world.after(499)
        world.reply("d")
        assert world.answers[id_].status == "complete"

    def test_each_result_beyond_enough_shortens_the_wait(self) -> None:
        world = Hybrid()
        id_ = world.ask("a", "b", "c", "d", "e", min_coverage=0.2)
        world.reply("a")
        world.reply("b", "c", "d")
        world.after(125)
        assert id_ in world.answers

    def test_without_enough_the_deadline_decides(self) -> None:
        world = Hybrid()
        world.cached("a")
        id_ = world.ask("a", "b", "d", min_coverage=0.6)
        world.after(999)
        assert id_ not in world.answers
        world.after(1)
        assert id_ in world.answers

    def test_when_all_have_ended_the_answer_goes_out_whatever_the_share(self) -> None:
        world = Hybrid()
        id_ = world.ask("a", "d", min_coverage=1.0)
        world.reply("a")
        world.reply("d", status="error")
        assert world.answers[id_].status == "partial"

    def test_no_coverage_at_all_still_wants_one_layer(self) -> None:
        world = Hybrid()
        id_ = world.ask("a", "d", min_coverage=0.0)
        world.after(900)
        assert id_ not in world.answers
        world.reply("d")
        world.after(50)
        assert world.statuses(id_) == {"a": "skipped", "d": "ok"}

    def test_what_comes_after_an_early_answer_is_cached(self) -> None:
        world = Hybrid()
        world.ask("a", "d", min_coverage=0.5)
        world.reply("a")
        world.after(500)
        world.reply("d")
        world.ask("a", "d")
        assert not world.sent

    def test_by_rules_what_is_missing_is_left_out_only_if_coverage_allows_it(self) -> None:
        world = Hybrid(select=SelectConfig(mode="rules", cache_threshold=0.6))
        world.cached("a", "b")
        allowed = world.ask("a", "b", "d", min_coverage=0.6)
        assert world.statuses(allowed)["d"] == "skipped"
        world.ask("a", "b", "d", min_coverage=1.0)
        assert world.asked() == ["d"]


class TestInvalidation:
    def test_an_order_between_lookup_and_fetch_is_not_lost(self) -> None:
        world = Hybrid()
        id_ = world.ask("a", "d")
        world.invalidate(layer="d")
        world.reply("a", "d")
        assert world.answers[id_].status == "complete", "the question came before the order"
        world.ask("a", "d")
        assert world.asked() == ["d"]

    def test_what_was_looked_up_after_the_order_is_kept(self) -> None:
        world = Hybrid()
        world.invalidate(layer="d")
        world.cached("a", "d")
        world.ask("a", "d")
        assert not world.sent

    def test_one_layer_is_fetched_again_beside_the_others(self) -> None:
        world = Hybrid()
        world.cached("a", "b", "d")
        world.invalidate(layer="b")
        id_ = world.ask("a", "b", "d")
        world.reply("b")
        assert world.sources(id_) == {"a": "cache", "b": "sequential", "d": "cache"}

    def test_a_scope_is_forgotten_without_the_others(self) -> None:
        world = Hybrid()
        for scope in ("one", "two"):
            world.cached("a", "d", scope=scope)
        world.invalidate(scope="one")
        world.ask("a", "d", scope="two")
        assert not world.sent
        world.ask("a", "d", scope="one")
        assert world.asked() == ["a", "d"]

    def test_one_question_is_forgotten_by_its_key(self) -> None:
        world = Hybrid()
        world.ask("d", n=1)
        key = world.sent[0].task.key
        world.reply("d")
        world.cached("d", n=2)
        world.invalidate(key=key)
        world.ask("d", n=2)
        assert not world.sent
        world.ask("d", n=1)
        assert world.asked() == ["d"]

    def test_only_tagged_results_are_forgotten_by_their_tag(self) -> None:
        world = Hybrid()
        id_ = world.ask("a", "d")
        world.reply("a", tags=["document-7"])
        world.reply("d", to=id_, tags=["document-8"])
        world.invalidate(tags=["document-7"])
        world.ask("a", "d")
        assert world.asked() == ["a"]


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


class TestControlMadeAnew:
    """Its offsets begin again, so that nothing can be compared with what was stamped before."""

    def test_what_is_held_is_forgotten_and_later_orders_hold(self) -> None:
        world = Hybrid()
        for _ in range(5):
            world.invalidate(tags=["none"])
        world.cached("a")
        world.parts.invalidations.follow(0)
        id_ = world.ask("a")
        assert world.asked() == ["a"], "nobody knows what the old log would have said"
        world.reply("a", to=id_)
        world.parts.cache.invalidate(generation=0, layer="a")
        world.parts.invalidations.follow(1)
        world.ask("a")
        assert world.asked() == ["a"], "a new order concerns what was looked up before it"

    def test_what_was_fetched_meanwhile_is_not_kept(self) -> None:
        world = Hybrid()
        world.invalidate(tags=["none"])
        id_ = world.ask("a")
        world.parts.invalidations.follow(0)
        world.reply("a", to=id_)
        assert world.answers[id_].status == "complete"
        world.ask("a")
        assert world.asked() == ["a"]
