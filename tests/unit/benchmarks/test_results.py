"""Spreads and ratios of what benchmarks measure."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec
import pytest
from results import LAST, Column, Report, Results, Spread, show, write
from turns import add_arguments, delays_of


def measured() -> Results:
    results = Results("some", seconds=1.5)
    for ours, theirs in ((10.0, 20.0), (30.0, 30.0), (90.0, 100.0)):
        results.add("ours", {"per_s": ours, "cpu_us": 5.0})
        results.add("theirs", {"per_s": theirs})
    return results


def test_figures_are_said_with_their_spread() -> None:
    assert measured().report({}).rows["ours"]["per_s"] == Spread(10.0, 30.0, 90.0)


def test_a_ratio_is_formed_within_each_repetition() -> None:
    found = measured().report({"ours": ("theirs", "nobody")}).ratios["ours"]
    assert found == {"theirs": {"per_s": Spread(0.5, 0.9, 1.0)}}


def test_a_contender_that_was_dropped_is_nobodys_rival() -> None:
    results = measured()
    results.drop("theirs")
    report = results.report({"ours": ("theirs",)})
    assert report.ratios["ours"] == {}
    assert "theirs" not in report.rows


def test_a_report_says_where_it_comes_from_and_can_be_read_again(tmp_path: Path) -> None:
    report = measured().report({"ours": ("theirs",)})
    path = write(report, tmp_path / "deep" / "report.json")
    assert msgspec.json.decode(path.read_bytes(), type=Report) == report
    assert report.repetitions == 3
    assert report.settings == {"seconds": 1.5}
    assert report.context.cores > 0
    assert report.context.commit
    assert {"python", "kafka", "aiokafka"} <= report.context.versions.keys()


def test_reports_go_where_git_does_not_look() -> None:
    ignored = LAST.parents[1].joinpath(".gitignore").read_text().splitlines()
    assert f"benchmarks/{LAST.name}/" in ignored


def test_ratios_are_printed_with_their_spread(capsys: pytest.CaptureFixture[str]) -> None:
    columns = (Column("per_s", "queries/s", 0), Column("cpu_us", "CPU", 0, compared=False))
    show(measured().report({"ours": ("theirs",)}), columns)
    printed = capsys.readouterr().out
    assert "0.90 (0.50-1.00)" in printed
    assert "| ours   |        30 |   5 |" in printed


def test_figures_are_printed_with_their_spread_if_it_is_wanted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show(measured().report({}), (Column("per_s", "queries/s", 1),), spreads=True)
    assert "30.0 (10.0-90.0) |" in capsys.readouterr().out


def test_only_known_contenders_can_be_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser, ("a b", "c"), delays_ms="0", repetitions=1)
    assert parser.parse_args([]).only == ["a b", "c"]
    assert parser.parse_args(["--only", "c, a b"]).only == ["c", "a b"]
    with pytest.raises(SystemExit):
        parser.parse_args(["--only", "c,d"])
    assert "unknown: d" in capsys.readouterr().err


def test_layers_wait_alike_or_each_for_itself() -> None:
    assert delays_of("10") == (10, 10, 10)
    assert delays_of("10,20,30") == (10, 20, 30)
    with pytest.raises(ValueError, match="values to unpack"):
        delays_of("10,20")
