"""Answers as people read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from rich.table import Table
from rich.text import Text

from anabranch.contract.events import Answer, AnswerItem, AnswerLayer
from anabranch.observe.terminal import Screen

__all__ = ["headline", "items", "layers", "milliseconds", "missing", "show_answer"]

_STATUS_STYLE: Final = {"complete": "green", "partial": "yellow", "failed": "red"}
_LAYER_STYLE: Final = {"ok": "green", "timeout": "yellow", "error": "red", "skipped": "dim"}
_TITLES: Final = ("title", "name", "subject", "text")
_BYLINES: Final = ("author", "date")
_MAX_DATA_CHARS: Final = 200


def show_answer(console: Screen, answer: Answer, limit: int = 10) -> None:
    """The best items, how each layer was asked and answered, the strategy and why."""
    console.print(headline(answer))
    if answer.error is not None:
        console.print(f"{answer.error.code}: {answer.error.message}", style="red")
    if answer.items:
        console.print(items(answer, limit))
    if answer.layers:
        console.print(layers(answer.layers))
    for line in missing(answer):
        console.print(line)


def headline(answer: Answer) -> Text:
    """Status, strategy, time and confidence, and why it was asked that way."""
    text = Text(answer.status, style=_STATUS_STYLE[answer.status])
    if answer.strategy is not None:
        text.append(f"  {answer.strategy}", style="bold")
    if answer.took_ms is not None:
        text.append(f"  {milliseconds(answer.took_ms)}", style="bold")
    text.append(f"  confidence {answer.confidence:.2f}", style="default")
    if answer.reason:
        text.append(f"\n{answer.reason}", style="dim")
    return text


def items(answer: Answer, limit: int) -> Table:
    """The best items: score, title, byline, and which layers found them."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(justify="right", style="dim")
    table.add_column(overflow="fold", ratio=1)
    table.add_column(style="dim")
    for item in answer.items[:limit]:
        table.add_row(f"{item.score:.3f}", _item(item), Text(" ".join(item.layers)))
    more = len(answer.items) - limit
    if more > 0:
        table.add_row("", Text(f"and {more} more", style="dim"))
    return table


def layers(by_name: Mapping[str, AnswerLayer]) -> Table:
    """Source, outcome and time of each layer."""
    table = Table(box=None, header_style="dim", pad_edge=False)
    for column in ("layer", "source", "status", "items", "took", "age", ""):
        table.add_column(column, justify="right" if column in ("items", "took", "age") else "left")
    for name, layer in by_name.items():
        table.add_row(
            Text(name),
            layer.source,
            Text(layer.status, style=_LAYER_STYLE[layer.status]),
            str(layer.count),
            milliseconds(layer.took_ms),
            milliseconds(layer.age_ms),
            Text(layer.error or "", style="red"),
        )
    return table


def missing(answer: Answer) -> list[Text]:
    """Which wanted layers are not in the answer, and why."""
    return [Text(f"without {each.layer}: {each.why}", style="yellow") for each in answer.missing]


def _item(item: AnswerItem) -> Text:
    data = item.data if isinstance(item.data, Mapping) else {}
    title = next((str(data[key]) for key in _TITLES if data.get(key)), "")
    byline = "  ".join(str(data[key]) for key in _BYLINES if data.get(key))
    text = Text(title or item.id, style="bold")
    if byline:
        text.append(f"  {byline}", style="dim")
    if title:
        text.append(f"\n{item.id}", style="cyan")
    elif item.data is not None:
        text.append(f"\n{_short(item.data)}", style="default")
    return text


def _short(data: Any) -> str:
    text = msgspec.json.encode(data).decode()
    return text if len(text) <= _MAX_DATA_CHARS else f"{text[:_MAX_DATA_CHARS]}…"


def milliseconds(value: float | None) -> str:
    """A duration, or nothing where it is unknown."""
    if value is None:
        return ""
    return f"{value:.1f} ms" if value < 100 else f"{value:,.0f} ms"
