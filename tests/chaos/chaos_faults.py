"""What is done to a scene. A fault draws from its own generator: one seed, one story."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from random import Random
from typing import Final, TypeAlias

from chaos_scene import PARAMS, ROLES, SESSION_S, Scene, Seat

__all__ = ["FAULTS", "hurt"]

Fault: TypeAlias = Callable[[Scene, Random], Awaitable[None]]


async def hurt(scene: Scene, faults: Sequence[str], seed: int, seconds: float) -> None:
    """These faults, at even distances, somewhat shaken; one may begin while others last.

    Ends when the last one is over and everybody is back.
    """
    loop, between_s = asyncio.get_running_loop(), seconds / (len(faults) + 1)
    begin = loop.time()
    async with asyncio.TaskGroup() as group:
        for number, fault in enumerate(faults):
            rng = random.Random(f"{seed}/{number}/{fault}")
            at = begin + between_s * (number + rng.uniform(0.5, 1.0))
            await asyncio.sleep(max(0.0, at - loop.time()))
            group.create_task(_happen(scene, FAULTS[fault](scene, rng)))
    for seat in scene.seats:
        await scene.ready(seat)


async def _happen(scene: Scene, fault: Awaitable[None]) -> None:
    begin = time.time()
    await fault
    scene.disturbed.append((begin, time.time()))


# ── processes ──────────────────────────────────────────────────────────────────────────────


async def kill_coordinator(scene: Scene, rng: Random) -> None:
    await _kill(scene, rng.choice(scene.of("coordinator")))


async def kill_worker(scene: Scene, rng: Random) -> None:
    await _kill(scene, rng.choice(scene.of("worker", "cpu")))


async def stop_coordinator(scene: Scene, rng: Random) -> None:
    """Shorter or longer than its session, drawn."""
    await _stand_still(scene, rng.choice(scene.of("coordinator")), rng)


async def stop_worker(scene: Scene, rng: Random) -> None:
    await _stand_still(scene, rng.choice(scene.of("worker", "cpu")), rng)


async def cut_off_coordinator(scene: Scene, rng: Random) -> None:
    """One that works on, and reaches nobody for longer than its session."""
    name = rng.choice(scene.of("coordinator")).name
    scene.note(f"cut off {name}")
    scene.excuse(name)
    await scene.dies(name)
    scene.network.silence(name)
    await asyncio.sleep(SESSION_S + 3)
    scene.network.let_speak(name)
    scene.note(f"{name} is heard again")


async def join(scene: Scene, rng: Random) -> None:
    """Scaling up, and down again."""
    seat = Seat(rng.choice(sorted(ROLES)))
    await scene.sit(seat)
    scene.note(f"start {seat.name}")
    scene.guests.append(seat)  # kept alive: it does not start while nodes are away
    await scene.ready(seat)
    await asyncio.sleep(2.0)
    scene.guests.remove(seat)
    scene.hurt(seat.name, signal.SIGTERM)


async def rolling(scene: Scene, rng: Random) -> None:
    """Everything is restarted, one after another."""
    for seat in rng.sample(scene.seats, len(scene.seats)):
        await _restart(scene, seat)


async def clock(scene: Scene, rng: Random) -> None:
    """A coordinator and a worker whose clocks are an hour off, each to its side."""
    seats = [rng.choice(scene.of("coordinator")), rng.choice(scene.of("worker", "cpu"))]
    for off_s in (rng.choice([3_600, -3_600]), 0):
        for seat, sign in zip(seats, (1, -1), strict=True):
            seat.clock_s = sign * off_s
            scene.note(f"the clock of {seat.role} will be {seat.clock_s} s off")
            await _restart(scene, seat)
        await asyncio.sleep(3.0)


async def client_dies(scene: Scene, rng: Random) -> None:
    """One that waits for answers is killed."""
    program, config = Path(__file__).with_name("chaos_client.py"), scene.config.source
    client = await asyncio.create_subprocess_exec(
        sys.executable, str(program), config, str(PARAMS),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert client.stdout is not None
        async with asyncio.timeout(60):
            await client.stdout.readline()
        await asyncio.sleep(rng.uniform(1.0, 3.0))
        scene.note("SIGKILL a client")
    finally:
        if client.returncode is None:  # it does not start while nodes are away
            client.kill()
        await client.wait()


async def _kill(scene: Scene, seat: Seat) -> None:
    name = seat.name
    await scene.dies(name)
    scene.hurt(name, signal.SIGKILL)


async def _stand_still(scene: Scene, seat: Seat, rng: Random) -> None:
    seconds, name = rng.choice([SESSION_S / 2, SESSION_S + 3]), seat.name
    if seconds > SESSION_S:
        await scene.dies(name)
    scene.hurt(name, signal.SIGSTOP)
    await asyncio.sleep(seconds)
    scene.note(f"SIGCONT {name}")
    if scene.alive(name):
        scene.fleet.signal(name, signal.SIGCONT)


async def _restart(scene: Scene, seat: Seat) -> None:
    name = seat.name
    scene.hurt(name, signal.SIGTERM)
    await scene.ready(seat, after=name)


# ── nodes and connections ──────────────────────────────────────────────────────────────────


async def kill_node(scene: Scene, rng: Random) -> None:
    node = rng.choice(scene.kafka.nodes)
    async with scene.outage(f"node {node.number} is killed"):
        await asyncio.to_thread(node.kill)
        await asyncio.sleep(2.0)
        await asyncio.to_thread(node.start)


async def stop_node(scene: Scene, rng: Random) -> None:
    node = rng.choice(scene.kafka.nodes)
    async with scene.outage(f"node {node.number} stands still"):
        node.suspend()
        await asyncio.sleep(rng.uniform(2.0, 8.0))
        node.resume()


async def no_nodes(scene: Scene, rng: Random) -> None:
    """All are killed, and away for half a minute."""
    async with scene.outage("all nodes are killed"):
        await asyncio.gather(*(asyncio.to_thread(node.kill) for node in scene.kafka.nodes))
        await asyncio.sleep(30.0)
        await asyncio.gather(*(asyncio.to_thread(node.start) for node in scene.kafka.nodes))


async def frozen_nodes(scene: Scene, rng: Random) -> None:
    """Nobody answers at all for a while."""
    async with scene.outage("all nodes stand still"):
        for node in scene.kafka.nodes:
            node.suspend()
        await asyncio.sleep(rng.uniform(2.0, 4.0))
        for node in scene.kafka.nodes:
            node.resume()


async def cut(scene: Scene, rng: Random) -> None:
    """Connections break, again and again."""
    numbers = [node.number for node in scene.kafka.nodes]
    async with scene.outage("connections are cut"):
        for _ in range(6):
            scene.network.cut(rng.sample(numbers, rng.randint(1, len(numbers))))
            await asyncio.sleep(rng.uniform(0.2, 1.0))


async def slow(scene: Scene, rng: Random) -> None:
    """All that is sent arrives late."""
    async with scene.outage("connections are slow"):
        scene.network.delay_s = rng.uniform(0.1, 0.3)
        await asyncio.sleep(8.0)
        scene.network.delay_s = 0.0


async def slow_disk(scene: Scene, rng: Random) -> None:
    """Every write of every node takes longer."""
    async with scene.outage("disks are slow"):
        with scene.disk.slow():
            await asyncio.sleep(rng.uniform(8.0, 12.0))


FAULTS: Final[dict[str, Fault]] = {
    "kill-coordinator": kill_coordinator,
    "kill-worker": kill_worker,
    "stop-coordinator": stop_coordinator,
    "stop-worker": stop_worker,
    "cut-off-coordinator": cut_off_coordinator,
    "join": join,
    "rolling": rolling,
    "clock": clock,
    "client-dies": client_dies,
    "kill-node": kill_node,
    "stop-node": stop_node,
    "frozen-nodes": frozen_nodes,
    "no-nodes": no_nodes,
    "cut": cut,
    "slow": slow,
    "slow-disk": slow_disk,
}
