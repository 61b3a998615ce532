"""`coordinator.query.cached_answer`: the short path says what the long one does."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hybrid import TTL_MS, Hybrid, named
from msgspec.structs import replace

from anabranch.contract.events import Answer
from anabranch.coordinator.query.answering import Composer
from anabranch.coordinator.query.cached_answer import CachedAnswers
from anabranch.dispatch.intake import Intake
from anabranch.learn import execution_telemetry
from anabranch.observe.spans import Trace, Tracer


def remembered(*layers: str) -> Hybrid:
    """A world in which all of these are cached, and were asked for once."""
    world = Hybrid()
    world.cached(*layers)
    world.ask(*layers)
    return world


def short_paths(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the queries that are answered on it from now on."""
    taken: list[str] = []
    answer = CachedAnswers.answer

    def told(self: CachedAnswers, query: object, *rest: object) -> object:
        out = answer(self, query, *rest)  # type: ignore[arg-type]
        if out is not None:
            taken.append(query.id)  # type: ignore[attr-defined]
        return out

    monkeypatch.setattr(CachedAnswers, "answer", told)
    return taken


def without_id(answer: Answer) -> Answer:
    return replace(answer, id="")


@pytest.mark.parametrize("after_ms", [0, 1, 1_000, TTL_MS - 2_000])
@pytest.mark.parametrize("layers", [("a",), ("a", "d"), ("a", "b", "c", "d", "e")])
def test_both_paths_say_the_same(
    monkeypatch: pytest.MonkeyPatch, layers: tuple[str, ...], after_ms: int
) -> None:
    world = remembered(*layers)
    world.after(after_ms)
    taken = short_paths(monkeypatch)
    short = world.ask(*layers)
    assert taken == [short]
    monkeypatch.setattr(CachedAnswers, "answer", lambda *args: None)
    long = world.ask(*layers)
    assert without_id(world.answers[short]) == without_id(world.answers[long])
    assert world.answers[short].strategy == "cache"
    assert not world.sent


def test_nothing_is_merged_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    world = remembered("a", "d")
    monkeypatch.setattr(Composer, "compose", None)
    assert world.answers[world.ask("a", "d")].status == "complete"


@pytest.mark.parametrize(
    "fields", [{"limit": 1}, {"max_age_ms": 0}, {"max_age_ms": 10}, {"params": {"n": 2}}]
)
def test_who_asks_otherwise_takes_the_long_path(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, object]
) -> None:
    world = remembered("a", "d")
    world.after(50)
    taken = short_paths(monkeypatch)
    world.ask("a", "d", **fields)
    world.ask("a")
    assert not taken


@pytest.mark.parametrize("strategy", ["cache", "sequential", "parallel", "distributed"])
def test_a_strategy_governs_only_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    world = remembered("a", "d")
    taken = short_paths(monkeypatch)
    id_ = world.ask("a", "d", strategy=strategy)
    assert taken == [id_]
    assert world.answers[id_].strategy == "cache"


def test_a_query_that_is_late_takes_the_long_path(monkeypatch: pytest.MonkeyPatch) -> None:
    world = remembered("a", "d")
    taken = short_paths(monkeypatch)
    monkeypatch.setattr(Intake, "deadline_ms", lambda self, query, asked_ms: world.now_ms)
    assert world.answers[world.ask("a", "d")].status == "complete"
    assert not taken


def test_new_results_are_merged_anew() -> None:
    world = remembered("a", "d")
    world.invalidate(layer="a")
    id_ = world.ask("a", "d")
    world.reply("a", items=named(["urn:new"]), to=id_)
    assert "urn:new" in world.ids(id_)
    assert "urn:new" in world.ids(world.ask("a", "d"))
    assert "urn:new" in world.ids(world.ask("a", "d"))


def test_it_teaches_what_a_record_of_each_would(monkeypatch: pytest.MonkeyPatch) -> None:
    def insights(*, short: bool) -> object:
        with monkeypatch.context() as patch:
            if not short:
                patch.setattr(CachedAnswers, "answer", lambda *args: None)
            world = remembered("a", "d")
            for _ in range(40):
                world.ask("a", "d")
            telemetry = world.parts.selector.telemetry
            batch = telemetry.take_batch()
            assert batch is not None
            return sorted(map(repr, batch.rows.queries)), telemetry.get_query_type_insights()

    assert insights(short=True) == insights(short=False)


def test_what_is_sampled_is_recorded_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    world = remembered("a", "d")
    taken = short_paths(monkeypatch)
    monkeypatch.setattr(execution_telemetry, "crc32", lambda value: 0)
    id_ = world.ask("a", "d")
    assert not taken
    batch = world.parts.selector.telemetry.take_batch()
    assert batch is not None
    assert id_ in {record.query for record in batch.sampled}


def test_numbers_are_summed_up_before_there_are_many() -> None:
    world = Hybrid()
    telemetry = world.parts.selector.telemetry
    for n in range(10 * execution_telemetry.MAX_CACHED):
        telemetry.count_cached(f"invented-{n}", ("a",), world.now_ms)
        assert len(telemetry._cached) <= execution_telemetry.MAX_CACHED + 1


def test_a_span_is_told_the_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, object] = {}

    class Told(Trace):
        def __init__(self) -> None:
            super().__init__((), None)

        @property
        def is_recorded(self) -> bool:
            return True

        def set(self, attributes: Mapping[str, object]) -> None:
            told.update(attributes)

    world = remembered("a", "d")
    monkeypatch.setattr(Tracer, "process", lambda *args: Told())
    id_ = world.ask("a", "d")
    assert told["anabranch.query.id"] == id_
    assert told["anabranch.strategy"] == "cache"
