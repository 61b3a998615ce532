"""A process that stood still sends nothing until the group has confirmed it."""

from __future__ import annotations

import asyncio

import pytest

from anabranch.coordinator.delivery.fencing import Fencing
from anabranch.errors import GenerationLost
from anabranch.runtime.supervisor import Stage
from anabranch.testing.virtual_time import VirtualClock, run


class Stopped(VirtualClock):
    """A clock that can jump as it does for a process that was suspended."""

    asleep_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.asleep_s


def test_without_a_gap_nothing_is_asked() -> None:
    async def body() -> None:
        clock, asked = Stopped(), []

        async def confirm() -> bool:
            asked.append(1)
            return True

        fencing = Fencing(clock, 3.0, confirm)
        running = asyncio.ensure_future(fencing.run(Stage("fencing", asyncio.get_running_loop())))
        for _ in range(10):
            await fencing.ensure_member()
            await asyncio.sleep(5.0)
        running.cancel()
        assert not asked

    run(body())


def test_after_a_gap_it_is_confirmed_once_and_then_trusted() -> None:
    async def body() -> None:
        clock, asked = Stopped(), []

        async def confirm() -> bool:
            asked.append(1)
            return True

        fencing = Fencing(clock, 3.0, confirm)
        await fencing.ensure_member()
        clock.asleep_s = 3.1
        await fencing.ensure_member()
        await fencing.ensure_member()
        assert asked == [1]

    run(body())


def test_a_gap_that_the_stage_sees_first_is_not_forgotten() -> None:
    async def body() -> None:
        clock = Stopped()

        async def confirm() -> bool:
            raise GenerationLost("they went on")

        fencing = Fencing(clock, 3.0, confirm)
        running = asyncio.ensure_future(fencing.run(Stage("fencing", asyncio.get_running_loop())))
        await asyncio.sleep(1.0)
        clock.asleep_s = 10.0
        await asyncio.sleep(1.0)
        for _ in range(2):
            with pytest.raises(GenerationLost):
                await fencing.ensure_member()
        running.cancel()

    run(body())


def test_what_could_not_be_confirmed_is_asked_again() -> None:
    async def body() -> None:
        clock, answers = Stopped(), [False, True]

        async def confirm() -> bool:
            return answers.pop(0)

        fencing = Fencing(clock, 3.0, confirm)
        await fencing.ensure_member()
        clock.asleep_s = 3.1
        await fencing.ensure_member()
        await fencing.ensure_member()
        await fencing.ensure_member()
        assert not answers

    run(body())


def test_a_gap_while_it_is_being_confirmed_is_confirmed_too() -> None:
    async def body() -> None:
        clock, asked = Stopped(), []

        async def confirm() -> bool:
            asked.append(1)
            if len(asked) == 1:
                clock.asleep_s += 3.1
            return True

        fencing = Fencing(clock, 3.0, confirm)
        await fencing.ensure_member()
        clock.asleep_s = 3.1
        await fencing.ensure_member()
        assert asked == [1, 1]

    run(body())
