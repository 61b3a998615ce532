"""A layer has an asyncio task, a context and a turn of its own, whether it waits or not."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import pytest
from executing import ITEMS, execute, only

from anabranch.contract.events import Item, PartialResult
from anabranch.layers.api import Ask, Request

Step = Callable[[], Awaitable[object]]


async def with_timeout() -> None:
    async with asyncio.timeout(0.1):
        await asyncio.sleep(0)


async def with_timeout_that_ends() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await asyncio.sleep(1)


async def with_task_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(0.001))


async def with_current_task() -> None:
    before = asyncio.current_task()
    assert before is not None
    await asyncio.sleep(0.001)
    assert asyncio.current_task() is before


async def with_shield() -> None:
    await asyncio.shield(asyncio.sleep(0.001))


async def with_executor() -> None:
    assert await asyncio.get_running_loop().run_in_executor(None, lambda: 1) == 1


async def with_gather() -> None:
    await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0.001))


async def with_wait_for() -> None:
    await asyncio.wait_for(asyncio.sleep(0.001), 1)


async def without_waiting() -> None: ...


STEPS: list[Step] = [
    with_timeout,
    with_timeout_that_ends,
    with_task_group,
    with_current_task,
    with_shield,
    with_executor,
    with_gather,
    with_wait_for,
    without_waiting,
]
steps = pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)


def by_layer(*args: Any, **kwargs: Any) -> dict[str, PartialResult]:
    return {r.layer: r for partial in execute(*args, **kwargs) for r in partial.results}


@steps
def test_whatever_asks_for_a_task_finds_one_from_the_first_step_on(step: Step) -> None:
    async def ask(_: Request) -> list[Item]:
        await step()
        return ITEMS

    results = by_layer({"a": ask, "b": ask}, *[(("a", "b"), 1_000)] * 3)
    assert [(r.status, r.items) for r in results.values()] == [("ok", ITEMS)] * 2


@steps
def test_it_is_ended_at_the_deadline_whatever_it_waited_in(step: Step) -> None:
    async def ask(_: Request) -> list[Item]:
        await step()
        async with asyncio.timeout(3_600), asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(3_600))
        raise AssertionError

    assert only(execute({"a": ask}, (("a",), 1_000))).status == "timeout"


def test_a_layer_in_a_task_that_is_shielded_goes_on_without_it() -> None:
    done: list[str] = []

    async def slow() -> None:
        await asyncio.sleep(2)
        done.append("slow")

    async def ask(_: Request) -> list[Item]:
        await asyncio.shield(asyncio.ensure_future(slow()))
        raise AssertionError

    async def watch(_: Request) -> list[Item]:
        await asyncio.sleep(3)
        return ITEMS

    results = by_layer({"a": ask, "b": watch}, (("a",), 1_000), (("b",), 9_000))
    assert results["a"].status == "timeout"
    assert done == ["slow"]


@pytest.mark.parametrize("waits", [False, True])
def test_no_two_layers_have_one_task(waits: bool) -> None:
    """Two calls of a layer may have, on CPython 3.11, if they end at once."""
    seen: dict[str, list[object]] = {"a": [], "b": []}

    def of(name: str) -> Ask:
        async def ask(request: Request) -> Any:
            seen[name].append(asyncio.current_task())
            if waits:
                await asyncio.sleep(0.001)
            return ITEMS

        return ask

    execute({"a": of("a"), "b": of("b")}, *[(("a", "b"), 1_000)] * 5)
    assert None not in seen["a"] + seen["b"]
    assert not set(seen["a"]) & set(seen["b"])
    if waits or sys.version_info >= (3, 12):
        assert len({*seen["a"], *seen["b"]}) == 10


@pytest.mark.parametrize("waits", [False, True])
def test_what_a_layer_puts_into_its_context_no_other_sees(waits: bool) -> None:
    of = ContextVar("of", default="nobody")
    seen: list[str] = []

    async def ask(request: Request) -> list[Item]:
        seen.append(of.get())
        of.set(f"{id(request)}")
        if waits:
            await asyncio.sleep(0.001)
            assert of.get() == f"{id(request)}"
        return []

    results = by_layer({"a": ask, "b": ask}, *[(("a", "b"), 1_000)] * 3)
    assert {result.status for result in results.values()} == {"ok"}
    assert seen == ["nobody"] * 6


def test_a_layer_that_cancels_its_task_and_does_not_wait_costs_nobody_anything() -> None:
    async def ask(_: Request) -> list[Item]:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return ITEMS

    async def waits(_: Request) -> list[Item]:
        await asyncio.sleep(0.001)
        return ITEMS

    results = by_layer({"a": ask, "b": waits}, *[(("a", "b"), 1_000)] * 3)
    assert {name: r.status for name, r in results.items()} == {"a": "ok", "b": "ok"}


@pytest.mark.parametrize("waits", [False, True])
def test_a_task_cancelled_after_its_layer_answered_is_no_other_layers(waits: bool) -> None:
    tasks: list[asyncio.Task[Any]] = []

    async def remembers(_: Request) -> list[Item]:
        current = asyncio.current_task()
        assert current is not None
        tasks.append(current)
        return ITEMS

    async def cancels(_: Request) -> list[Item]:
        for task in tasks:
            task.cancel()
        if waits:
            await asyncio.sleep(0.001)
        return ITEMS

    layers = {"a": remembers, "b": cancels}
    results = execute(layers, *[(("a", "b"), 1_000)] * 5)
    assert [r.status for partial in results for r in partial.results] == ["ok"] * 10


def test_a_layer_that_cancels_its_task_before_it_waits_is_an_error_whatever_it_waits_for() -> None:
    async def ask(request: Request) -> list[Item]:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await (asyncio.sleep(0) if request.params["text"] == "x" else asyncio.sleep(1))
        raise AssertionError

    results = by_layer({"a": ask, "b": ask}, (("a", "b"), 1_000))
    assert {r.error for r in results.values()} == {"the layer cancelled itself"}


def test_what_a_layer_waits_for_is_cancelled_with_it_from_the_first_step_on() -> None:
    inner: list[asyncio.Task[None]] = []

    async def ask(_: Request) -> list[Item]:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        inner.append(asyncio.create_task(asyncio.sleep(0.5)))
        await inner[0]
        raise AssertionError

    async def later(_: Request) -> list[Item]:
        await asyncio.sleep(0.9)
        return ITEMS

    results = by_layer({"a": ask, "b": later}, (("a", "b"), 1_000))
    assert results["a"].error == "the layer cancelled itself"
    assert inner[0].cancelled()


def test_a_call_that_cancels_its_task_and_answers_costs_the_next_of_its_layer_nothing() -> None:
    async def ask(request: Request) -> list[Item]:
        task = asyncio.current_task()
        assert task is not None
        if not asked:
            task.cancel()
        asked.append(request)
        if len(asked) > 1:
            await asyncio.sleep(0.001)
        return ITEMS

    asked: list[Request] = []
    results = execute({"a": ask}, *[(("a",), 1_000)] * 3)
    assert [r.status for partial in results for r in partial.results] == ["ok"] * 3


def test_whoever_looks_at_the_task_of_a_layer_sees_where_it_waits() -> None:
    seen: list[str] = []

    async def waits_here() -> None:
        await asyncio.sleep(0.01)

    async def ask(_: Request) -> list[Item]:
        task = asyncio.current_task()
        assert task is not None

        def look() -> None:
            assert task is not None
            seen.extend(frame.f_code.co_name for frame in task.get_stack())
            seen.append(inspect.getcoroutinestate(task.get_coro()))

        asyncio.get_running_loop().call_later(0.005, look)
        await waits_here()
        return ITEMS

    assert only(execute({"a": ask}, (("a",), 1_000))).status == "ok"
    assert seen == ["_run", inspect.CORO_SUSPENDED]


def test_layers_that_wait_have_one_timer_and_others_none(monkeypatch: pytest.MonkeyPatch) -> None:
    deadlines: list[asyncio.TimerHandle] = []

    def call_at(loop: Any, when: float, callback: Any, *args: Any, **more: Any) -> Any:
        timer = call_at_before(loop, when, callback, *args, **more)
        if getattr(callback, "__name__", "") == "expire":
            deadlines.append(timer)
        return timer

    call_at_before = asyncio.SelectorEventLoop.call_at
    monkeypatch.setattr(asyncio.SelectorEventLoop, "call_at", call_at)

    async def at_once(_: Request) -> list[Item]:
        return ITEMS

    async def waits(_: Request) -> list[Item]:
        await asyncio.sleep(0.001)
        return ITEMS

    layers = {"a": at_once, "b": waits, "c": waits}
    execute(layers, (("a",), 1_000))
    assert deadlines == []
    execute(layers, (("a", "b", "c"), 1_000))
    assert [timer.cancelled() for timer in deadlines] == [True]


def test_layers_that_compute_for_long_let_others_run_in_between() -> None:
    asked_in_turn: list[int] = []

    async def computes(_: Request) -> list[Item]:
        loop: Any = asyncio.get_running_loop()
        loop._virtual.now += 0.004
        asked_in_turn[-1] += 1
        return []

    def turn(loop: asyncio.AbstractEventLoop) -> None:
        asked_in_turn.append(0)
        if len(asked_in_turn) < 200:
            loop.call_soon(turn, loop)

    execute({"a": computes}, *[(("a",), 60_000)] * 100, slots=8, before=turn)
    assert sum(asked_in_turn) == 100
    assert max(asked_in_turn) == 3  # of 4 ms each, in a turn of 10
