"""What a benchmark reports: spreads and ratios, with the machine, versions and commit they are of.

A figure is measured once in every repetition; repetitions are interleaved, so that a ratio is
formed within each of them and its median is what is said.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec import Struct
from rich import box
from rich.console import Console
from rich.table import Table

from anabranch.dev.kafka_jars import KAFKA_VERSION

LAST = Path(__file__).parent / "last"
"""Where reports are written unless told otherwise; git does not keep it."""
LIBRARIES = ("aiokafka", "anabranch", "faststream", "msgspec", "uvloop")


class Spread(Struct, frozen=True):
    """A figure over all repetitions."""

    min: float
    median: float
    max: float


class Context(Struct, frozen=True):
    """Where and of what a report is."""

    machine: str
    cores: int
    load: float
    """Processes that were running or waited for a core, over the last minute before."""
    versions: dict[str, str]
    commit: str
    begun: str


class Report(Struct, frozen=True):
    """A benchmark's result file."""

    benchmark: str
    context: Context
    settings: dict[str, int | float | str]
    repetitions: int
    rows: dict[str, dict[str, Spread]]
    ratios: dict[str, dict[str, dict[str, Spread]]]
    """By contender, by rival, by figure: the contender's divided by the rival's."""


class Column(NamedTuple):
    """How a figure is printed."""

    figure: str
    title: str
    digits: int
    compared: bool = True
    """Whether its ratios are printed."""


class Results:
    """Collects what is measured, repetition by repetition. Make it before anything runs."""

    def __init__(self, benchmark: str, **settings: int | float | str) -> None:
        self._benchmark = benchmark
        self._settings = settings
        self._context = context()
        self._runs: dict[str, list[Mapping[str, float]]] = {}

    def add(self, name: str, figures: Mapping[str, float]) -> None:
        """One repetition of a contender."""
        self._runs.setdefault(name, []).append(figures)

    def drop(self, name: str) -> None:
        """Forget a contender that did not come through."""
        self._runs.pop(name, None)

    def report(self, rivals: Mapping[str, Sequence[str]]) -> Report:
        """All of it; rivals that were not measured are passed over."""
        return Report(
            self._benchmark,
            self._context,
            self._settings,
            max(map(len, self._runs.values()), default=0),
            {name: _spreads(runs) for name, runs in self._runs.items()},
            {
                name: {
                    rival: _spreads(_ratios(runs, self._runs[rival]))
                    for rival in rivals.get(name, ())
                    if rival in self._runs
                }
                for name, runs in self._runs.items()
            },
        )


def context() -> Context:
    """Of this process, now."""
    return Context(
        f"{platform.system()} {platform.machine()}, {_processor()}",
        os.cpu_count() or 0,
        round(os.getloadavg()[0], 2),
        {
            "python": platform.python_version(),
            "kafka": KAFKA_VERSION,
            **{name: found for name in LIBRARIES if (found := _version(name))},
        },
        _commit(),
        datetime.now(UTC).isoformat(timespec="seconds"),
    )


def write(report: Report, path: Path | None) -> Path:
    """Write a report as JSON, by default to `last/`; gives where to."""
    path = path or LAST / f"{report.benchmark}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    return path


def show(report: Report, columns: Sequence[Column], *, spreads: bool = False) -> None:
    """Print ratios, if there are any, with their spread, and figures, with theirs if wanted."""
    console = Console(width=160)
    console.print(said_of(report))
    if any(report.ratios.values()):
        compared = [each for each in columns if each.compared]
        table = _table(["", "/", *(each.title for each in compared)])
        for name, rivals in report.ratios.items():
            for rival, figures in rivals.items():
                table.add_row(name, rival, *(_ratio(figures.get(e.figure)) for e in compared))
        console.print("ratios, in brackets least and most", table)
    table, cell = _table(["", *(each.title for each in columns)]), _cell if spreads else _median
    for name, figures in report.rows.items():
        table.add_row(name, *(cell(figures.get(e.figure), e.digits) for e in columns))
    console.print("measured", table)


def said_of(report: Report) -> str:
    """Where and of what it is, in a sentence."""
    of = report.context
    versions = ", ".join(f"{name} {number}" for name, number in of.versions.items())
    return (
        f"{of.machine}, {of.cores} cores, load before {of.load}; {versions}; {of.commit}; "
        f"medians of {report.repetitions}"
    )


def _table(titles: Sequence[str]) -> Table:
    table = Table(box=box.MARKDOWN)
    for title in titles:
        table.add_column(title, justify="right" if len(title) > 1 else "left", no_wrap=True)
    return table


def _ratio(got: Spread | None) -> str:
    return _cell(got, 2 if got is None or got.median < 10 else 1 if got.median < 100 else 0)


def _cell(got: Spread | None, digits: int) -> str:
    if got is None:
        return ""
    low, middle, high = (f"{value:,.{digits}f}" for value in (got.min, got.median, got.max))
    return middle if low == high else f"{middle} ({low}-{high})"


def _median(got: Spread | None, digits: int) -> str:
    return "" if got is None else f"{got.median:,.{digits}f}"


def _spreads(runs: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    figures = dict.fromkeys(figure for run in runs for figure in run)
    return {figure: _spread([run[figure] for run in runs if figure in run]) for figure in figures}


def _spread(values: Sequence[float]) -> Spread:
    return Spread(min(values), statistics.median(values), max(values))


def _ratios(
    runs: Sequence[Mapping[str, float]], rivals: Sequence[Mapping[str, float]]
) -> list[dict[str, float]]:
    return [
        {figure: run[figure] / rival[figure] for figure in run if rival.get(figure)}
        for run, rival in zip(runs, rivals, strict=False)
    ]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _commit() -> str:
    git = ("git", "-C", str(Path(__file__).parent))
    try:
        said = subprocess.run(
            [*git, "describe", "--always", "--dirty", "--abbrev=10"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    except OSError:
        return "unknown"
    return said.stdout.strip() or "unknown"
