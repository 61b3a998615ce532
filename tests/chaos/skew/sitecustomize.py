"""Puts the wall clock of a Python process off: with this folder on PYTHONPATH, by CHAOS_CLOCK_S."""

from __future__ import annotations

import os
import time

_off_s = float(os.environ.get("CHAOS_CLOCK_S", "0"))
_right, _right_ns = time.time, time.time_ns
time.time = lambda: _right() + _off_s
time.time_ns = lambda: _right_ns() + int(_off_s * 1e9)
