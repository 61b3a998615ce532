"""The examples do what they say, run as anybody would run them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_a_layer_of_ones_own_is_asked_once_and_then_cached() -> None:
    ran = subprocess.run(
        [sys.executable, str(EXAMPLES / "embedded.py")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    first, _, again, _ = ran.stdout.splitlines()
    assert first == "complete sequential ['order:17', 'order:20']"
    assert again == "complete cache ['order:17', 'order:20']"
    assert ran.stderr == ""
