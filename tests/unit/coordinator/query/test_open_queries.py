"""How long a query waits for more than enough, and for what."""

from __future__ import annotations

import pytest
from hybrid import Hybrid

from anabranch.config.settings import SelectConfig
from anabranch.contract.bounds import MAX_LAYERS
from anabranch.contract.codec import encode
from anabranch.contract.events import LayerDescriptor
from anabranch.coordinator.query.open_queries import OpenQueries
from anabranch.coordinator.query.open_query import OpenQuery


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


def test_hundreds_of_layers_whose_group_is_withdrawn_fail_in_one_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each that cannot be sent is followed by the next, and none of it inside the other."""
    advance, inside = OpenQueries._advance, list[int]()

    def once(self: OpenQueries, open_query: OpenQuery, now_ms: float) -> None:
        assert not inside
        inside.append(open_query.offset)
        advance(self, open_query, now_ms)
        inside.clear()

    monkeypatch.setattr(OpenQueries, "_advance", once)
    world, names = Hybrid(), [f"l{n}" for n in range(MAX_LAYERS)]
    for name in names:
        world._announce(world.parts, f"layer/io/{name}", encode(LayerDescriptor(name, "io")))
    id_ = world.ask(*names, strategy="sequential")
    (first,) = world.asked()
    world.parts.registry.topics_exist("io", 0)
    world.reply(first)
    answer = world.answers[id_]
    assert (answer.status, answer.error) == ("partial", None)
    withdrawn = [it for it in answer.missing if it.why == "its group was withdrawn meanwhile"]
    assert len(withdrawn) == len(names) - 1
    assert world.left() == (0, 0, 0)
    assert not world.letters
