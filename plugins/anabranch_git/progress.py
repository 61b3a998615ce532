"""Telling how far an index is: a callback, drawn as a bar only on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from anabranch.observe.terminal import Screen

__all__ = ["Progress", "silent", "terminal"]

Progress: TypeAlias = Callable[[str, int, int], None]
"""`progress(stage, done, total)`, called from the thread that indexes, after each batch."""


def silent(stage: str, done: int, total: int) -> None:
    """Say nothing."""


@contextmanager
def terminal(label: str) -> Iterator[Progress]:
    """A progress bar on standard error if that is a terminal; shown once there is work."""
    if not sys.stderr.isatty():
        yield silent
        return
    bar = Bar(
        TextColumn(f"{_literal(label)}: {{task.description}}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Screen(stderr=True),
        transient=True,
    )
    tasks = {}

    def show(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            bar.start()
            tasks[stage] = bar.add_task(stage, total=total)
        bar.update(tasks[stage], completed=done, total=total)

    try:
        yield show
    finally:
        bar.stop()


def _literal(text: str) -> str:
    """Text for a format string."""
    return text.replace("{", "{{").replace("}", "}}")
