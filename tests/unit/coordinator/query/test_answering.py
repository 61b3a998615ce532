"""The answer says what is so now: weights in force, and how far old results can be trusted."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hybrid import TTL_MS, Hybrid, named

from anabranch.aggregate.result_aggregator import FRESHNESS_HALF_LIFE_MS, RRF_K
from anabranch.contract.codec import MAX_VALUE_BYTES, decode, encode
from anabranch.contract.events import Answer, AnswerItem, AnswerLayer, LayerDescriptor
from anabranch.coordinator.query import answering
from anabranch.observe.spans import Trace


class Told(Trace):
    """A trace whose span is a dictionary of attributes."""

    def __init__(self, told: dict[str, object]) -> None:
        super().__init__((), None)
        self.told = told

    @property
    def is_recorded(self) -> bool:
        return True

    def set(self, attributes: Mapping[str, object]) -> None:
        self.told.update(attributes)


def announce(scene: Hybrid, layer: str, weight: float, ttl_ms: int = TTL_MS) -> None:
    descriptor = LayerDescriptor(layer, "io", weight=weight, ttl_ms=ttl_ms)
    scene._announce(scene.parts, f"layer/io/{layer}", encode(descriptor))


def order(scene: Hybrid, id_: str) -> list[str]:
    return [item.id for item in scene.answers[id_].items]


def ask_both(scene: Hybrid, n: int = 1, **fields: object) -> str:
    id_ = scene.ask("a", "b", n=n, **fields)
    scene.reply("a", items=named(["urn:of-a"]), to=id_)
    scene.reply("b", items=named(["urn:of-b"]), to=id_)
    return id_


class TestWeights:
    @pytest.mark.parametrize(("weights", "first"), [((1.0, 2.0), "of-b"), ((3.0, 2.0), "of-a")])
    def test_a_layer_has_the_say_that_it_announced(
        self, weights: tuple[float, float], first: str
    ) -> None:
        scene = Hybrid()
        announce(scene, "a", weights[0])
        announce(scene, "b", weights[1])
        id_ = ask_both(scene)
        assert order(scene, id_)[0] == f"urn:{first}"
        assert scene.answers[id_].items[0].score == pytest.approx(max(weights) / (RRF_K + 1))

    def test_the_type_s_weight_goes_before_it(self) -> None:
        scene = Hybrid()
        announce(scene, "b", 9.0)
        scene.parts.config.type_config("t").weights["b"] = 0.5
        assert order(scene, ask_both(scene)) == ["urn:of-a", "urn:of-b"]

    def test_what_is_remembered_follows_a_weight_that_is_announced_anew(self) -> None:
        scene = Hybrid()
        ask_both(scene)
        for _ in range(3):
            assert order(scene, scene.ask("a", "b"))[0] == "urn:of-a"
        announce(scene, "b", 2.0)
        for _ in range(3):
            assert order(scene, scene.ask("a", "b"))[0] == "urn:of-b"

    def test_a_layer_announced_as_before_leaves_what_is_remembered(self) -> None:
        scene = Hybrid()
        before = scene.parts.registry.revision
        announce(scene, "a", 1.0)
        assert scene.parts.registry.revision == before


class TestConfidence:
    def test_of_what_is_remembered_falls_with_its_age(self) -> None:
        scene = Hybrid()
        for layer in "ab":
            announce(scene, layer, 1.0, ttl_ms=3 * FRESHNESS_HALF_LIFE_MS)
        first = ask_both(scene, n=5)
        scene.ask("a", "b", n=5)  # merged and remembered
        young = scene.ask("a", "b", n=5)
        scene.after(FRESHNESS_HALF_LIFE_MS)
        old = scene.ask("a", "b", n=5)
        answers = scene.answers
        assert answers[young].confidence == pytest.approx(answers[first].confidence)
        assert answers[old].confidence == pytest.approx(answers[first].confidence / 2)
        assert scene.parts.cache.stats()["memo_hits"] >= 2


def test_the_span_names_what_another_query_fetched() -> None:
    scene = Hybrid(partitions=2)
    told: dict[str, object] = {}
    scene.ask("a")
    scene.ask("a", "b", at=1)
    waiter = scene.partitions[1].queries.fetching()[0]
    waiter.trace = Told(told)
    scene.reply("a", "b")
    assert told["anabranch.shared"] == "a"


def test_no_more_is_encoded_of_what_hundreds_of_layers_found_than_may_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = tuple(f"{n:0128}" for n in range(256))
    items = [AnswerItem(names, f"urn:{n}", 1.0) for n in range(1_000)]  # of 33 KB each
    answer = Answer("q", "complete", layers=dict.fromkeys(names, AnswerLayer()), items=items)
    encoded: list[int] = []

    def count(event: object) -> bytes:
        encoded.append(len(value := encode(event)))
        return value

    monkeypatch.setattr(answering, "encode", count)
    value = answering.encode_bounded(answer)
    assert 900_000 < len(value) <= MAX_VALUE_BYTES
    assert sum(encoded) < 5 * MAX_VALUE_BYTES
    told = decode(value, Answer)
    assert told.truncated
    assert told.items == items[: len(told.items)]
