"""Coordinators and workers on the in-memory broker and virtual time: a seed is a schedule.

Each kind of schedule promises something (see `sim_world.KINDS`); whatever the kind, every query
is answered and what an answer says is true. A failing seed is run again alone by its test's name,
or with others by `SIMULATION_SEEDS=1000:2000 python -m pytest tests/simulation`.
"""

from __future__ import annotations

import os

import pytest
from sim_world import KINDS, simulate

_FIRST, _AFTER = map(int, os.environ.get("SIMULATION_SEEDS", "0:20").split(":"))


@pytest.mark.parametrize("seed", range(_FIRST, _AFTER))
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_promised_is_kept(kind: str, seed: int) -> None:
    outcome = simulate(kind, seed)
    if outcome.violations:
        pytest.fail("\n".join([*outcome.violations, "", "what happened:", *outcome.trace]), False)


@pytest.mark.parametrize(
    ("kind", "seed"),
    [
        ("embedded", 1222),  # a rebalance between a copy and its answer: another copy
        ("workers", 1065),  # all workers die at once: an innocent question was quarantined
        ("cuts", 1106),  # a coordinator hears nobody for a while: likewise
        ("retention and kills", 50013),  # a repeat of a repeat whose first is gone
        ("lost tails exactly once", 8),  # a lost partition's rounds went on for ever
        ("lost tails", 50012),  # stamps from before a leader whose clock is ahead
        ("lost tails", 60026),  # a log that grew again beyond what was read, in a rebalance
        ("lost tails", 60129),  # a repeat of a question that retention took unanswered
    ],
)
def test_what_long_runs_found_stays_mended(kind: str, seed: int) -> None:
    assert not simulate(kind, seed).violations


@pytest.mark.parametrize("kind", ["calm", "storm"])
def test_a_seed_is_a_schedule(kind: str) -> None:
    once, again = simulate(kind, 1), simulate(kind, 1)
    assert once.digest
    assert once.digest == again.digest
    assert once.digest != simulate(kind, 2).digest
