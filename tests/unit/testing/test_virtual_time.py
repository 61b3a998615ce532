"""Virtual time: waiting costs nothing, order is that of the timers, and deadlocks are told."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from anabranch.testing.virtual_time import EPOCH_MS, DeadlockError, VirtualClock, run


def test_sleeping_moves_the_clock_by_exactly_the_time_slept() -> None:
    async def scenario() -> float:
        await asyncio.sleep(86_400)
        await asyncio.sleep(0.25)
        return asyncio.get_running_loop().time()

    assert run(scenario()) == pytest.approx(86_400.25, abs=1e-6)


def test_time_does_not_pass_while_tasks_are_ready() -> None:
    async def scenario() -> float:
        for _ in range(1000):
            await asyncio.sleep(0)
        return asyncio.get_running_loop().time()

    assert run(scenario()) == 0.0


def test_tasks_wake_in_the_order_of_their_timers() -> None:
    async def scenario() -> list[int]:
        woken: list[int] = []

        async def wait(seconds: int) -> None:
            await asyncio.sleep(seconds)
            woken.append(seconds)

        await asyncio.gather(*map(wait, (3, 1, 2)))
        return woken

    assert run(scenario()) == [1, 2, 3]


def test_timeouts_fire_on_virtual_time() -> None:
    async def scenario() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.Event().wait()
        return asyncio.get_running_loop().time()

    assert run(scenario()) == pytest.approx(5)


def test_a_deadlock_is_an_error_that_names_who_waits_where() -> None:
    async def stuck_for_ever() -> None:
        await asyncio.Event().wait()

    async def scenario() -> None:
        await asyncio.sleep(7)
        task = asyncio.create_task(stuck_for_ever(), name="the-stuck-one")
        await task

    with pytest.raises(DeadlockError, match=r"7\.000 s.*the-stuck-one waits in .*stuck_for_ever"):
        run(scenario())


def test_a_loop_that_spins_without_time_passing_is_an_error() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()

        def spin() -> None:
            loop.call_soon(spin)

        spin()
        await asyncio.Event().wait()

    with pytest.raises(DeadlockError, match="time stands still"):
        run(scenario())


def test_threads_are_replaced_by_inline_calls() -> None:
    async def scenario() -> tuple[int, float]:
        ident = await asyncio.to_thread(threading.get_ident)
        return ident, asyncio.get_running_loop().time()

    assert run(scenario()) == (threading.get_ident(), 0.0)


def test_an_inline_call_hands_on_its_error() -> None:
    async def scenario() -> None:
        await asyncio.to_thread(int, "no number")

    with pytest.raises(ValueError, match="no number"):
        run(scenario())


def test_there_is_no_network() -> None:
    async def scenario() -> None:
        one, other = socket.socketpair()
        with one, other:
            asyncio.get_running_loop().add_reader(one.fileno(), lambda: None)

    with pytest.raises(NotImplementedError, match="no I/O"):
        run(scenario())


def test_leftover_tasks_are_cancelled_when_the_run_ends() -> None:
    cancelled: list[bool] = []

    async def background() -> None:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def scenario() -> None:
        task = asyncio.create_task(background())
        await asyncio.sleep(1)
        assert not task.done()

    run(scenario())
    assert cancelled == [True]


def test_wall_clocks_of_processes_differ_and_jump_while_the_monotonic_one_goes_on() -> None:
    async def scenario() -> None:
        right, wrong = VirtualClock(), VirtualClock(skew_ms=-3_600_000)
        await asyncio.sleep(10)
        assert right.time_ms() == EPOCH_MS + 10_000
        assert wrong.time_ms() == EPOCH_MS + 10_000 - 3_600_000
        wrong.jump(7_200_000)
        assert wrong.time_ms() == EPOCH_MS + 10_000 + 3_600_000
        assert right.monotonic() == wrong.monotonic() == 10

    run(scenario())
