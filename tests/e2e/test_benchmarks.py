"""The benchmarks of whole pipelines still run. What they measure is not looked at here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.kafka
@pytest.mark.slow
def test_pipelines_are_measured_beside_a_relay_and_a_peer(tmp_path: Path) -> None:
    chosen = {"relay 1 hop", "cached", "parallel", "handwritten"}
    out = tmp_path / "report.json"
    command = [sys.executable, str(BENCHMARKS / "end_to_end.py"), "--only", ",".join(chosen)]
    done = subprocess.run(
        [*command, "--seconds", "0.3", "--repetitions", "1", "--out", str(out)],
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_bytes())
    assert report["rows"].keys() == chosen, done.stderr
    assert report["ratios"]["parallel"].keys() == {"handwritten"}
    for figures in report["rows"].values():
        assert {"per_s", "cpu_us", "cpu_us_gathers", "p99_ms", "third_p999_ms"} <= figures.keys()
