"""Whatever a fetch brings, the loop turns in between, and what was sent on in between is sent."""

from __future__ import annotations

import ast
import asyncio
from pathlib import Path

import pytest
from records import FakeRecord

import anabranch
from anabranch.kafka.transport import TopicPartition
from anabranch.kafka.turns import Turn, in_turns, one_by_one
from anabranch.testing.virtual_time import run

AT = TopicPartition("t", 0)


@pytest.mark.parametrize(
    ("records", "value", "took_s", "most"),
    [
        (100_000, b"", 0.0, 250),
        (200, bytes(1_000_000), 0.0, 2),
        (1_000, b"", 0.004, 3),
    ],
    ids=["many", "large", "slow"],
)
def test_a_turn_ends_at_the_first_of_its_bounds(
    records: int, value: bytes, took_s: float, most: int
) -> None:
    now_s = 0.0
    turn = Turn(lambda: now_s)
    longest = length = 0
    for _ in range(records):
        now_s += took_s
        length += 1
        longest = max(longest, length)
        if turn.is_over(len(value)):
            turn.begin()
            length = 0
    assert longest == most


def test_others_run_and_what_came_of_it_goes_out_between_turns() -> None:
    async def body() -> None:
        handled = longest = since = 0
        flushed: list[int] = []
        done = False

        async def heartbeat() -> None:
            nonlocal longest, since
            while not done:
                longest, since = max(longest, handled - since), handled
                await asyncio.sleep(0)

        async def flush() -> None:
            flushed.append(handled)

        beating = asyncio.create_task(heartbeat())
        batches = {AT: [FakeRecord(b"x", offset=n) for n in range(90_000)]}
        async for _, record in in_turns(batches, flush):
            assert record.offset == handled
            handled += 1
        done = True
        await beating
        assert handled == 90_000
        assert longest <= 250
        assert flushed == list(range(250, 90_001, 250))

    run(body())


def test_what_falls_due_at_once_is_worked_off_in_turns_too() -> None:
    async def body() -> None:
        pauses: list[int] = []
        done: list[int] = []

        async def between() -> None:
            pauses.append(len(done))

        async for number in one_by_one(range(1_000), between):
            done.append(number)
        assert done == list(range(1_000))
        assert pauses == [250, 500, 750, 1_000]

    run(body())


def test_every_loop_over_fetched_records_takes_turns() -> None:
    """Whoever calls a consumer's `fetch` hands what it brings to `in_turns`, or waits only."""
    package = Path(anabranch.__file__).parent
    waits = {"backfill.py: run"}
    found = set()
    for path in package.rglob("*.py"):
        if path.is_relative_to(package / "testing") or path.parent.name == "client":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.AsyncFunctionDef):
                text = ast.unparse(node)
                if ".fetch(" in text and "_subscription.fetch(" not in text:
                    found.add((f"{path.name}: {node.name}", "in_turns(" in text))
    assert {name for name, in_turns_ in found if not in_turns_} == waits
    assert len(found) >= 10
