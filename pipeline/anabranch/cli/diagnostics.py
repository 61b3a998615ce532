"""`anabranch diagnostics`: who runs, and what the components count."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import uvloop
from cyclopts import Parameter
from rich.table import Table

from anabranch.admin.diagnostics import Diagnostics
from anabranch.cli import runtime
from anabranch.cli.common import COMMON, Common, note, out, print_json
from anabranch.cli.render import milliseconds
from anabranch.config.settings import Config
from anabranch.observe.terminal import Screen

__all__ = ["diagnostics"]

Stats = Mapping[str, Any]


def diagnostics(
    *,
    json: Annotated[bool, Parameter(negative="")] = False,
    common: Common = COMMON,
) -> int:
    """Show who runs and what they count; exit code 1 if no coordinator is there.

    Asks the pipeline that `anabranch up` runs from this folder, unless an option, variable or
    file names a broker.

    Parameters
    ----------
    json
        One JSON document.
    """
    found = uvloop.run(_read(runtime.reachable(common)))
    if json:
        print_json(found)
    else:
        _show(out(), found)
    return 0 if found["coordinators"] else 1


async def _read(config: Config) -> dict[str, Any]:
    async with Diagnostics(config) as reader:
        return await reader.get_phase_7bc_diagnostics()


def _show(console: Screen, found: Stats) -> None:
    workers = [worker for group in found["worker_pool"].values() for worker in group]
    if not found["coordinators"] and not workers:
        note("nobody is there; start with `anabranch up`")
    for table in (
        _coordinators(found["coordinators"]),
        _workers(workers),
        _cache(found["cross_layer_cache"]),
        _graph(found["dependency_graph"]),
        _strategies(found["execution_telemetry"]),
    ):
        if table.row_count:
            console.print(table)
            console.print()
    for sentence in _recommendations(found["execution_telemetry"]):
        console.print(sentence, style="yellow", soft_wrap=True)
    for name in found["silent"]:
        console.print(f"{name} has fallen silent", style="red")


def _coordinators(members: Iterable[Stats]) -> Table:
    table = _table("coordinator", "state", "partitions", "queries", "answered", "open")
    for member in members:
        stats = member["stats"]
        counts = [f"{stats.get(name, 0):,.0f}" for name in ("queries", "answered", "open")]
        table.add_row(member["instance"], member["state"], str(len(member["partitions"])), *counts)
    return table


def _workers(members: Iterable[Stats]) -> Table:
    table = _table("worker", "group", "state", "partitions", "queued", "tasks", "wait")
    for member in members:
        table.add_row(
            member["instance"],
            member["group"],
            member["state"],
            str(len(member["partitions"])),
            str(member["queued"]),
            f"{member['stats'].get('tasks', 0):,.0f}",
            milliseconds(member["stats"].get("queue_ms")),
        )
    return table


def _cache(caches: Mapping[str, Stats]) -> Table:
    table = _table("cache of", "hit rate", "probes", "entries", "MB", "saved", "refreshes")
    for name, stats in caches.items() if len(caches) > 1 else ():
        table.add_row(
            name,
            f"{stats['hit_rate']:.0%}",
            f"{stats['probes']:,}",
            f"{stats['entries']:,}",
            f"{stats['cache_size_mb']:.1f}",
            milliseconds(stats["saved_ms"]),
            f"{stats['refreshes']:,}",
            style="bold" if name == "total" else None,
        )
    return table


def _graph(graphs: Mapping[str, Stats]) -> Table:
    table = _table("learned by", "queries", "types", "layers", "pairs")
    for name, stats in graphs.items():
        counts = [f"{stats[key]:,.0f}" for key in ("queries", "types", "layers", "pairs")]
        table.add_row(name, *counts)
    return table


def _strategies(reports: Mapping[str, Stats]) -> Table:
    """Of one coordinator: all of them learn the same."""
    table = _table("strategy", "queries", "mean", "success", "speed-up", "accuracy")
    report = next(iter(reports.values()), None)
    for name, row in report["effectiveness"].items() if report else ():
        accuracy = report["accuracy"].get(name, {}).get("accuracy") if report else None
        table.add_row(
            name,
            f"{row['queries']:,.0f}",
            milliseconds(row["mean_ms"]),
            f"{row['success_rate']:.0%}",
            "" if row["speedup"] is None else f"{row['speedup']:.1f}x",
            "" if accuracy is None else f"{accuracy:.0%}",
        )
    return table


def _recommendations(reports: Mapping[str, Stats]) -> list[str]:
    report = next(iter(reports.values()), None)
    return [
        f"{found['setting']}: {found['proposed']} instead of {found['present']}: "
        f"{found['evidence']}"
        for found in (report["recommendations"] if report else ())
    ]


def _table(first: str, *columns: str) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="left" if column in ("state", "group") else "right")
    return table
