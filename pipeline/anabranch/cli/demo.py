"""`anabranch demo`: a pipeline over a git repository, asked a handful of questions, each twice.

The first question is the same for any repository; the others follow from its answer.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final

from msgspec import Struct
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from anabranch.cli.common import COMMON, INTERRUPTED, Common, note, out, serve
from anabranch.cli.pipeline import embedded, pipeline
from anabranch.cli.render import headline, items, milliseconds, missing
from anabranch.client import Client
from anabranch.config.settings import Config, LayerConfig
from anabranch.contract.events import Answer
from anabranch.dev.embedded import EmbeddedBroker
from anabranch.observe.terminal import Screen

__all__ = ["demo"]

TIMEOUT_MS: Final = 5_000
SHOWN: Final = 3
_KINDS: Final = {"episodic": "history", "graph": "history", "semantic": "documents"}
"""Layers of the git plugin, and the worker group that each is served by."""
_LETTERS: Final = re.compile(r"[A-Za-z]{2,}")
_NOT_SUBJECTS: Final = frozenset(
    {"init", "index", "main", "readme", "changelog", "setup", "conftest"}
)
"""Files that say little about what a repository is about."""


class Question(Struct, frozen=True):
    """A question as it is asked."""

    type: str
    params: dict[str, Any]

    def __str__(self) -> str:
        return " ".join(f"{key}={value!r}" for key, value in self.params.items())


class Asked(Struct, frozen=True):
    """A question's answer, and how long its asker waited."""

    answer: Answer
    waited_ms: float


def demo(*, repo: Path = Path(), common: Common = COMMON) -> int:
    """Start everything, index a git repository, and ask it a handful of questions, each twice.

    Parameters
    ----------
    repo
        A git repository: a working tree, a folder in one, or a bare one.
    """
    config = Config(
        source="demo",
        layers={
            kind: LayerConfig(
                plugin="anabranch_git:Git",
                group=group,
                settings={"kind": kind, "repo": str(repo.resolve())},
            )
            for kind, group in _KINDS.items()
        },
    )
    with EmbeddedBroker() as broker:
        return serve(_demo(embedded(config, broker), repo), when_stopped=INTERRUPTED)


async def _demo(config: Config, repo: Path) -> int:
    console = out()
    note("starting the embedded broker")
    async with (
        pipeline(config, lambda step: note(f"starting {step}")),
        Client(config) as client,
    ):
        first = Question("temporal", {"text": "what changed recently"})
        opening = await _ask_twice(console, client, 1, first)
        pairs = [(first, opening)]
        for number, question in enumerate(_following(opening[0].answer), start=2):
            pairs.append((question, await _ask_twice(console, client, number, question)))
    _show_gain(console, pairs)
    _show_how(console, repo, pairs[-1][0])
    return 0


def _following(answer: Answer) -> Iterator[Question]:
    """Questions about the files that the latest commits touched, and about who made them."""
    data = [item.data for item in answer.items if isinstance(item.data, dict)]
    paths = sorted(_frequent(p for each in data for p in each.get("paths", ())), key=_is_aside)
    subjects = [*_frequent(filter(None, map(_subject, paths))), "install", "test"]
    authors = _frequent(str(each["author"]) for each in data if each.get("author"))
    yield Question("factual", {"text": f"how does {subjects[0]} work"})
    yield Question("relational", {"text": f"which files belong to {[*paths, 'README.md'][0]}"})
    yield Question("planning", {"text": f"what to know before changing {subjects[1]}"})
    if authors:
        yield Question("temporal", {"text": f"changes of {subjects[0]}", "author": authors[0]})


def _is_aside(path: str) -> bool:
    """Whether a file is about the work rather than the thing: tests, settings of tools."""
    return any(part.startswith((".", "test")) for part in PurePosixPath(path).parts)


def _subject(path: str) -> str:
    """What a file is about, by its name; nothing where that says little."""
    words = _LETTERS.findall(PurePosixPath(path).stem.removeprefix("test_"))
    subject = " ".join(words).lower()
    return "" if subject in _NOT_SUBJECTS else subject


def _frequent(found: Iterable[str]) -> list[str]:
    return [each for each, _ in Counter(found).most_common()]


async def _ask_twice(
    console: Screen, client: Client, number: int, question: Question
) -> tuple[Asked, Asked]:
    console.print(Text(f"\n{number}  {question.type}  {question}", style="bold cyan"))
    first = await _ask(client, question)
    again = await _ask(client, question)
    shown: list[RenderableType] = [headline(first.answer), items(first.answer, SHOWN)]
    shown += [_layers(first.answer, again.answer), *missing(first.answer)]
    console.print(_indented(Group(*shown)))
    return first, again


async def _ask(client: Client, question: Question) -> Asked:
    start = time.perf_counter()
    answer = await client.ask(question.type, question.params, timeout_ms=TIMEOUT_MS)
    return Asked(answer, (time.perf_counter() - start) * 1000)


def _indented(shown: RenderableType) -> Padding:
    return Padding(shown, (0, 0, 0, 3), expand=False)


def _layers(first: Answer, again: Answer) -> Table:
    """Source and time of each layer, both times."""
    table = Table("layer", "first", "", "again", "", box=None, header_style="dim", pad_edge=False)
    for name, asked in first.layers.items():
        repeated = again.layers[name]
        table.add_row(
            name,
            f"{asked.source}, {asked.status}",
            milliseconds(asked.took_ms),
            f"{repeated.source}, {repeated.status}",
            milliseconds(repeated.took_ms),
        )
    return table


def _show_gain(console: Screen, pairs: Sequence[tuple[Question, tuple[Asked, Asked]]]) -> None:
    table = Table("question", "first", "again", "gain", box=None, header_style="bold")
    for question, (first, again) in pairs:
        gain = first.waited_ms / again.waited_ms
        table.add_row(
            Text(str(question)),
            milliseconds(first.waited_ms),
            milliseconds(again.waited_ms),
            f"{gain:.1f} times",
        )
    console.print("\nThe second asking is answered from the cache; times as the asker waited:")
    console.print(table)


def _show_how(console: Screen, repo: Path, question: Question) -> None:
    layers = "\n".join(
        f'[layers.{kind}]\nplugin = "git"\nkind = "{kind}"\nrepo = "{repo.resolve()}"'
        for kind in _KINDS
    )
    console.print("\nTo ask your own questions, write anabranch.toml:\n")
    console.print(_indented(Text(layers)))
    console.print("\nthen run, each in a terminal of its own:\n")
    ask = f"anabranch ask {question.type} text={question.params['text']!r}"
    console.print(_indented(Text(f"anabranch up\n{ask}")))
