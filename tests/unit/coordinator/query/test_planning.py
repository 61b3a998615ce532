"""Which layers are asked where the type leaves it to what was learned."""

from __future__ import annotations

import pytest
from hybrid import Hybrid

from anabranch.contract.events import AnswerLayer
from anabranch.contract.telemetry import ExecutionTelemetry


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
