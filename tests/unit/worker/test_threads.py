"""A blocking layer's threads, on a real loop: what hangs costs its own layer, and not the exit."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from functools import partial

import pytest

from anabranch.errors import LayerError
from anabranch.runtime.supervisor import until
from anabranch.worker.threads import LayerThreads


class Hanging:
    """A call that does not return before it is let go."""

    def __init__(self) -> None:
        self.begun, self.end = threading.Event(), threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        self.end.wait(30)
        return "late"


async def left_hanging(threads: LayerThreads) -> Hanging:
    """A call that hangs in a thread and that nobody waits for any more."""
    hanging = Hanging()
    asked = asyncio.ensure_future(threads.run(hanging))
    await until(hanging.begun.is_set)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    return hanging


async def test_a_call_gives_what_the_function_gave() -> None:
    threads = LayerThreads("a", 2)
    given = await asyncio.gather(*(threads.run(partial(pow, n, 2)) for n in range(20)))
    assert given == [n * n for n in range(20)]
    threads.shutdown()


@pytest.mark.parametrize(
    "error", [SystemExit(1), KeyboardInterrupt(), BaseException("x"), ValueError("x")], ids=repr
)
async def test_whatever_is_raised_reaches_whoever_asked(error: BaseException) -> None:
    def raises() -> None:
        raise error

    threads = LayerThreads("a", 1)
    with pytest.raises(type(error)):
        await threads.run(raises)
    assert await threads.run(lambda: "still there") == "still there"
    threads.shutdown()


async def test_a_stop_iteration_is_an_error_and_not_a_wait_for_ever() -> None:
    threads = LayerThreads("a", 1)
    with pytest.raises(RuntimeError, match="StopIteration"):
        await threads.run(lambda: next(iter(())))
    threads.shutdown()


async def test_no_more_threads_than_allowed() -> None:
    threads = LayerThreads("a", 2)
    hanging = [Hanging() for _ in range(5)]
    asked = [asyncio.ensure_future(threads.run(call)) for call in hanging]
    await until(lambda: sum(call.begun.is_set() for call in hanging) == 2)
    for call in hanging:
        call.end.set()
    assert await asyncio.gather(*asked) == ["late"] * 5
    names = {thread.name for thread in threading.enumerate()}
    assert {"layer a 1", "layer a 2"} <= names
    assert "layer a 3" not in names
    threads.shutdown()


async def test_a_hung_call_keeps_one_thread_and_others_serve() -> None:
    threads = LayerThreads("a", 2)
    hanging = await left_hanging(threads)
    assert await threads.run(lambda: "served") == "served"
    hanging.end.set()
    threads.shutdown()


async def test_once_all_threads_hang_the_layer_says_so_until_one_comes_back() -> None:
    threads = LayerThreads("a", 2)
    first, second = await left_hanging(threads), await left_hanging(threads)
    with pytest.raises(LayerError, match="all 2 threads of the layer hang"):
        await threads.run(lambda: "never begun")
    first.end.set()
    await until(lambda: threads.hanging < 2)
    assert await threads.run(lambda: "served") == "served"
    second.end.set()
    threads.shutdown()


async def test_a_call_that_was_given_up_before_it_began_is_not_begun() -> None:
    threads = LayerThreads("a", 1)
    hanging = Hanging()
    first = asyncio.ensure_future(threads.run(hanging))
    await until(hanging.begun.is_set)
    begun: list[int] = []
    second = asyncio.ensure_future(threads.run(lambda: begun.append(1)))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    hanging.end.set()
    assert await first == "late"
    assert await threads.run(lambda: "served") == "served"
    assert begun == []
    threads.shutdown()


def test_a_thread_that_hangs_does_not_keep_the_process() -> None:
    program = """
import asyncio, threading
from anabranch.worker.threads import LayerThreads

async def main():
    begun = threading.Event()
    asked = asyncio.ensure_future(
        LayerThreads("a", 1).run(lambda: (begun.set(), threading.Event().wait()))
    )
    while not begun.is_set():
        await asyncio.sleep(0.01)
    asked.cancel()

asyncio.run(main())
print("ended")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "ended\n"
