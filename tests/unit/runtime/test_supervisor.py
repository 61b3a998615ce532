"""Supervised stages: a failure ends the body once, and never its cleaning up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

import pytest

from anabranch.client import Client
from anabranch.config.settings import Config
from anabranch.errors import StageFailed
from anabranch.runtime.clock import SystemClock
from anabranch.runtime.supervisor import Stage, Supervisor, signalled
from anabranch.testing import run
from anabranch.testing.memory import MemoryBroker


class Owner:
    """As a coordinator does it: drain, close, settle."""

    def __init__(self, drain_s: float = 1.0) -> None:
        self.supervisor = Supervisor("owner", stuck_after_s=5)
        self.told: list[str] = []
        self._drain_s = drain_s

    async def __aenter__(self) -> Self:
        self.supervisor.attach()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self.supervisor.failure is None:
                await asyncio.sleep(self._drain_s)
                self.told.append("drained")
        finally:
            await self.supervisor.stop()
            await asyncio.sleep(1)
            self.told.append("closed")
            self.supervisor.settle()


async def live(
    owner: Owner, stage: Callable[[Stage], Awaitable[None]] | None, seconds: float = 100
) -> None:
    """A body that ends by itself after so long."""
    async with owner:
        if stage is not None:
            owner.supervisor.start("one", stage)
        await asyncio.sleep(seconds)


def test_a_stage_that_dies_ends_the_body_with_its_error_as_the_cause() -> None:
    async def scenario() -> None:
        owner = Owner()

        async def die(stage: Stage) -> None:
            await asyncio.sleep(1)
            raise ValueError("inside")

        with pytest.raises(StageFailed, match="stage one died: inside") as failed:
            await live(owner, die)
        assert isinstance(failed.value.__cause__, ValueError)
        assert owner.told == ["closed"]
        assert asyncio.get_running_loop().time() == pytest.approx(2)

    run(scenario())


def test_a_stage_without_a_stamp_is_stuck() -> None:
    async def scenario() -> None:
        async def hang(stage: Stage) -> None:
            await asyncio.sleep(1000)

        with pytest.raises(StageFailed, match="stage one is stuck") as failed:
            await live(Owner(), hang)
        assert isinstance(failed.value.__cause__, TimeoutError)

    run(scenario())


def test_a_stage_that_waits_in_bounded_steps_is_not_stuck() -> None:
    async def scenario() -> None:
        owner, never = Owner(), asyncio.Event()

        async def wait(stage: Stage) -> None:
            while not await signalled(never):
                stage.beat()

        await live(owner, wait)
        assert owner.told == ["drained", "closed"]

    run(scenario())


async def be_cancelled(stage: Stage) -> None:
    raise asyncio.CancelledError


async def give_back(stage: Stage) -> None:
    return


@pytest.mark.parametrize("run_out", [be_cancelled, give_back])
def test_a_stage_that_ends_without_being_stopped_has_failed(
    run_out: Callable[[Stage], Awaitable[None]],
) -> None:
    async def scenario() -> None:
        owner = Owner()

        async def body() -> None:
            async with owner:
                owner.supervisor.start("one", run_out)
                await asyncio.sleep(100)

        with pytest.raises(StageFailed, match="stage one died: it ended by itself"):
            await body()
        assert owner.told == ["closed"]

    run(scenario())


def test_the_first_failure_is_the_one_that_is_told() -> None:
    async def scenario() -> None:
        owner = Owner()

        async def die(after_s: float, error: Exception) -> None:
            await asyncio.sleep(after_s)
            raise error

        async def body() -> None:
            async with owner:
                owner.supervisor.start("late", lambda stage: die(1.0, KeyError("second")))
                owner.supervisor.start("early", lambda stage: die(0.5, ValueError("first")))
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(100)
                await asyncio.sleep(2)  # the body cleans up, and the second stage dies meanwhile

        with pytest.raises(StageFailed, match="stage early died") as failed:
            await body()
        assert isinstance(failed.value.__cause__, ValueError)

    run(scenario())


def test_a_stage_that_stamps_is_left_alone_and_cancelled_at_the_end() -> None:
    async def scenario() -> None:
        owner, cancelled = Owner(), []

        async def work(stage: Stage) -> None:
            try:
                while True:
                    stage.beat()
                    await asyncio.sleep(1)
            except asyncio.CancelledError:
                cancelled.append(stage.name)
                raise

        await live(owner, work)
        assert owner.told == ["drained", "closed"]
        assert cancelled == ["one"]

    run(scenario())


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize("drain_s", [0.0, 1.0])
def test_a_failure_at_any_turn_of_the_end_leaves_nothing_open(turns: int, drain_s: float) -> None:
    """The failure's cancellation may arrive in the body, while draining, or while closing."""

    async def scenario() -> None:
        owner = Owner(drain_s)

        async def fail() -> None:
            await asyncio.sleep(1 + drain_s)
            for _ in range(turns):
                await asyncio.sleep(0)
            owner.supervisor.fail(ValueError("late"))

        failing = asyncio.create_task(fail())
        with pytest.raises(StageFailed, match="late"):
            await live(owner, None, 1)
        await failing
        assert owner.told[-1] == "closed"

    run(scenario())


def test_cancelling_the_application_is_no_failure() -> None:
    async def scenario() -> None:
        owner = Owner()

        task = asyncio.create_task(live(owner, None))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert owner.told == ["drained", "closed"]

    run(scenario())


def test_whoever_waits_for_a_stage_is_told_of_its_death_at_once() -> None:
    async def scenario() -> None:
        owner, told = Owner(), []

        async def die(stage: Stage) -> None:
            await asyncio.sleep(1)
            raise ValueError("inside")

        async def wait_beside() -> None:
            with pytest.raises(StageFailed, match="stage one died: inside") as failed:
                await owner.supervisor.unless_failed(asyncio.sleep(100))
            assert isinstance(failed.value.__cause__, ValueError)
            told.append(asyncio.get_running_loop().time())

        waiting = asyncio.create_task(wait_beside())
        server = asyncio.create_task(owner.supervisor.wait_failed())
        with pytest.raises(StageFailed):
            await live(owner, die)
        assert "stage one died: inside" in str(await server)
        await waiting
        assert told == [pytest.approx(1)]
        with pytest.raises(StageFailed, match="inside"):
            owner.supervisor.check()

    run(scenario())


def test_what_comes_before_a_failure_is_handed_on() -> None:
    async def scenario() -> None:
        owner = Owner()
        async with owner:
            assert await owner.supervisor.unless_failed(asyncio.sleep(1, "done")) == "done"
        owner.supervisor.check()

    run(scenario())


async def test_a_client_whose_reader_dies_tells_everybody_who_waits() -> None:
    transport = MemoryBroker(clock=SystemClock()).transport()
    client = Client(Config(), transport=transport)

    async def serve(started: asyncio.Event) -> None:
        """As a web server's lifespan does it: the body is in another task than the requests."""
        async with client:
            started.set()
            await asyncio.sleep(3600)

    async def listen() -> None:
        async for _ in client.answers():
            pass

    started = asyncio.Event()
    server = asyncio.create_task(serve(started))
    await started.wait()
    waiting = [asyncio.create_task(client.ask("t", layers=["a"], timeout_ms=60_000))]
    waiting.append(asyncio.create_task(listen()))
    ending = asyncio.create_task(client.wait_failed())
    await asyncio.sleep(0)
    client._supervisor.fail(ValueError("the reader is gone"), "stage answers died")
    async with asyncio.timeout(10):
        for each in waiting:
            with pytest.raises(StageFailed, match="the reader is gone"):
                await each
        assert "the reader is gone" in str(await ending)
        with pytest.raises(StageFailed, match="the reader is gone"):
            await server
    with pytest.raises(StageFailed, match="the reader is gone"):
        await client.ask("t", layers=["a"])
