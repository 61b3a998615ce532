"""`anabranch diagnostics` and `anabranch invalidate`: what people and scripts see."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from anabranch import cli
from anabranch.admin.diagnostics import Invalidation
from anabranch.cli import diagnostics as shown
from anabranch.cli import invalidate as ordered
from anabranch.cli import runtime

MEMBER = {"instance": "c0", "state": "ready", "partitions": [0, 1], "queued": 3}
FOUND: dict[str, Any] = {
    "dependency_graph": {"c0": {"queries": 7.0, "types": 1, "layers": 2, "pairs": 1}},
    "cross_layer_cache": {
        name: {
            "hit_rate": 0.25,
            "probes": 8,
            "entries": 2,
            "cache_size_mb": 1.5,
            "saved_ms": 80.0,
            "refreshes": 1,
        }
        for name in ("c0", "total")
    },
    "strategy_selection": {"c0": {"mode": "learned"}},
    "execution_telemetry": {
        "c0": {
            "effectiveness": {
                "parallel": {"queries": 6.0, "mean_ms": 12.0, "success_rate": 1.0, "speedup": 1.8}
            },
            "accuracy": {"parallel": {"accuracy": 0.9}},
            "recommendations": [
                {"setting": "a.b", "present": 1, "proposed": 2, "evidence": "it is [so]"}
            ],
        }
    },
    "worker_pool": {"io": [MEMBER | {"instance": "w0", "group": "io", "stats": {"tasks": 5.0}}]},
    "coordinators": [MEMBER | {"stats": {"queries": 1234.0, "answered": 1230.0, "open": 4.0}}],
    "silent": ["c1"],
}
NOBODY: dict[str, Any] = {
    name: {} for name in ("dependency_graph", "strategy_selection", "execution_telemetry")
} | {"cross_layer_cache": {"total": {}}, "worker_pool": {}, "coordinators": [], "silent": []}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runtime, "refusal", lambda bootstrap: None)


def diagnose(monkeypatch: pytest.MonkeyPatch, found: dict[str, Any], *options: str) -> int:
    async def read(config: Any) -> dict[str, Any]:
        return found

    monkeypatch.setattr(shown, "_read", read)
    return cli.run(["diagnostics", "--bootstrap", "there:1", *options])


def forget(
    monkeypatch: pytest.MonkeyPatch, silent: list[str], *words: str
) -> tuple[int, list[tuple[Any, ...]]]:
    orders = []

    async def order(config: Any, *target: Any) -> Invalidation:
        orders.append(target)
        return Invalidation(7, 12, {"c0": 12}, silent)

    monkeypatch.setattr(ordered, "_order", order)
    return cli.run(["invalidate", *words, "--bootstrap", "there:1"]), orders


def test_tables_name_everybody_and_what_they_count(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert diagnose(monkeypatch, FOUND) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines]
    assert ["c0", "ready", "2", "1,234", "1,230", "4"] in rows
    assert ["w0", "io", "ready", "2", "3", "5"] in rows
    assert ["total", "25%", "8", "2", "1.5", "80.0", "ms", "1"] in rows
    assert ["parallel", "6", "12.0", "ms", "100%", "1.8x", "90%"] in rows
    assert "a.b: 2 instead of 1: it is [so]" in lines
    assert "c1 has fallen silent" in lines


def test_json_is_all_of_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert diagnose(monkeypatch, FOUND, "--json") == 0
    assert json.loads(capsys.readouterr().out) == FOUND


def test_where_nobody_is_it_says_so_and_exits_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert diagnose(monkeypatch, NOBODY) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert "nobody is there" in told.err


def test_an_order_names_its_target_and_says_how_many(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("graph", "--scope", "me", "--tag", "x", "--tag", "y")
    code, orders = forget(monkeypatch, [], *words)
    assert code == 0
    assert orders == [("graph", "me", None, ("x", "y"))]
    assert capsys.readouterr().out == "12 cached results forgotten in 1 coordinator\n"


def test_who_did_not_confirm_is_named_and_the_code_is_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert forget(monkeypatch, ["c1"], "graph")[0] == 1
    assert "c1 did not confirm" in capsys.readouterr().err


def test_nothing_to_forget_is_a_wrong_call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, orders = forget(monkeypatch, [])
    assert (code, orders) == (2, [])
    assert "--scope" in capsys.readouterr().err
