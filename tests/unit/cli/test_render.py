"""Answers as people read them: everything that matters is there, and nothing is interpreted."""

from __future__ import annotations

import io
from typing import Any

import pytest

from anabranch.cli.render import milliseconds, show_answer
from anabranch.contract.events import Answer, AnswerItem, AnswerLayer, Error, Missing
from anabranch.observe.terminal import Screen


def shown(answer: Answer, limit: int = 10) -> str:
    console = Screen(file=io.StringIO(), width=120)
    show_answer(console, answer, limit)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def answer(**changes: Any) -> Answer:
    whole: dict[str, Any] = {
        "id": "q",
        "status": "partial",
        "strategy": "parallel",
        "reason": "because it is faster",
        "confidence": 0.756,
        "took_ms": 12.34,
        "items": [
            AnswerItem(("a", "b"), "x:1", 0.5, {"title": "First", "author": "Ada"}),
            AnswerItem(("a",), "x:2", 0.25, {"other": 7}),
            AnswerItem(("b",), "x:3", 0.125, "plain"),
        ],
        "layers": {
            "a": AnswerLayer(source="cache", count=2, age_ms=1500),
            "b": AnswerLayer(source="parallel", count=1, took_ms=7.0),
            "c": AnswerLayer(source="parallel", status="error", error="no route"),
        },
        "missing": [Missing("c", "no route")],
    }
    return Answer(**(whole | changes))


def test_status_strategy_time_confidence_and_reason_come_first() -> None:
    first, second, *_ = shown(answer()).splitlines()
    assert first.split() == ["partial", "parallel", "12.3", "ms", "confidence", "0.76"]
    assert second == "because it is faster"


def test_an_item_is_shown_by_its_title_or_else_by_its_id_and_data() -> None:
    text = shown(answer())
    assert "0.500  First  Ada" in text
    assert "x:1" in text
    assert '{"other":7}' in text
    assert '"plain"' in text


def test_only_the_best_items_are_shown_and_the_rest_counted() -> None:
    text = shown(answer(), limit=1)
    assert "First" in text
    assert "x:2" not in text
    assert "and 2 more" in text


def test_each_layer_has_its_source_outcome_and_time() -> None:
    rows = {line.split()[0]: line.split() for line in shown(answer()).splitlines() if line.strip()}
    assert rows["a"] == ["a", "cache", "ok", "2", "1,500", "ms"]
    assert rows["b"] == ["b", "parallel", "ok", "1", "7.0", "ms"]
    assert rows["c"] == ["c", "parallel", "error", "0", "no", "route"]
    assert rows["without"] == ["without", "c:", "no", "route"]


def test_a_failed_answer_shows_its_error() -> None:
    error = Error("unavailable", "nobody serves [a]")
    text = shown(Answer(id="q", status="failed", error=error))
    assert "unavailable: nobody serves [a]" in text


def test_what_looks_like_markup_is_text() -> None:
    found = AnswerItem(("[b]",), "[red]id[/red]", 1.0, {"title": "[bold]fix[/bold] [/x]"})
    text = shown(answer(items=[found], reason="[dim]why", layers={"[x]": AnswerLayer()}))
    for literal in ("[red]id[/red]", "[bold]fix[/bold] [/x]", "[dim]why", "[b]", "[x]"):
        assert literal in text


def test_long_data_is_cut() -> None:
    found = AnswerItem(("a",), "x:1", 1.0, ["y" * 5_000])
    assert shown(answer(items=[found])).count("y") < 300


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (0.04, "0.0 ms"), (99.9, "99.9 ms"), (1234.5, "1,234 ms")]
)
def test_durations_are_as_precise_as_they_are_short(value: float | None, text: str) -> None:
    assert milliseconds(value) == text
