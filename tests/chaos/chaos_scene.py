"""What a run is made of: a cluster, a fleet that is kept alive, and what is done to them."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Final

from fleet import Fleet

from anabranch.dev.local_kafka import LocalKafka

__all__ = ["FAULTS", "NEEDS_NODES", "SESSION_S", "Scene", "standing"]

SESSION_S: Final = 6.0
ROLES: Final[dict[str, tuple[str, ...]]] = {
    "coordinator": ("coordinator",),
    "worker": ("worker",),
    "cpu": ("worker", "--group", "cpu"),
}
FLEET: Final = ("coordinator", "coordinator", "worker", "worker", "cpu", "cpu")
NEEDS_NODES: Final = frozenset({"kill-node", "stop-node"})


class Scene:
    """Processes and nodes, kept alive: what ends is started again, under a new name."""

    def __init__(self, fleet: Fleet, kafka: LocalKafka, rng: random.Random, nodes: int) -> None:
        self.fleet = fleet
        self.kafka = kafka
        self.rng = rng
        self.nodes = nodes
        self.died: list[float] = []
        """When coordinators stopped working, in epoch seconds."""
        self.told: list[str] = []
        self.failures: list[str] = []
        """Exits that nobody caused; where nodes failed, sessions and so processes may end."""
        self.nodes_failed = False
        self._numbers = count(1)
        self._roles: dict[str, str] = {}
        self._hurt: set[str] = set()

    async def start(self, role: str) -> str:
        name = f"{role}-{next(self._numbers)}"
        self._roles[name] = role
        await self.fleet.start(name, *ROLES[role])
        return name

    async def keep(self) -> None:
        """As a supervisor does: start another for each that ended."""
        while True:
            await asyncio.sleep(0.5)
            for name, process in list(self.fleet.processes.items()):
                if process.returncode is None or name not in self._roles:
                    continue
                role = self._roles.pop(name)
                self.note(f"{name} ended with {process.returncode}")
                if name not in self._hurt and not self.nodes_failed:
                    last = self.fleet.log(name).read_text().splitlines()[-3:]
                    self.failures.append(f"{name} ended with {process.returncode}: {last}")
                await self.start(role)

    def one(self, *roles: str) -> str:
        """A process of one of these roles, drawn."""
        return self.rng.choice(sorted(n for n, role in self._roles.items() if role in roles))

    def all(self) -> list[str]:
        return sorted(self._roles)

    def hurt(self, name: str, how: signal.Signals) -> None:
        self.note(f"{how.name} {name}")
        self._hurt.add(name)
        if name.startswith("coordinator") and how in (signal.SIGKILL, signal.SIGSTOP):
            self.died.append(time.time())
        if self.fleet.processes[name].returncode is None:
            self.fleet.signal(name, how)

    def dismiss(self, name: str) -> None:
        """End a process for good."""
        self._roles.pop(name, None)
        self.hurt(name, signal.SIGTERM)

    def note(self, what: str) -> None:
        self.told.append(f"{time.strftime('%H:%M:%S')} {what}")


@asynccontextmanager
async def standing(path: Path, kafka: LocalKafka, seed: int, nodes: int) -> AsyncIterator[Scene]:
    """Two coordinators and four workers, ready; and nothing left of them afterwards."""
    fleet = Fleet(path)
    scene = Scene(fleet, kafka, random.Random(seed), nodes)
    try:
        for role in FLEET:
            await scene.start(role)
        await fleet.ready()
        yield scene
    finally:
        for process in fleet.processes.values():
            if process.returncode is None:
                process.kill()
        await asyncio.gather(*(p.wait() for p in fleet.processes.values()))


# ── faults ─────────────────────────────────────────────────────────────────────────────────


async def kill_coordinator(scene: Scene) -> None:
    scene.hurt(scene.one("coordinator"), signal.SIGKILL)


async def kill_worker(scene: Scene) -> None:
    scene.hurt(scene.one("worker", "cpu"), signal.SIGKILL)


async def stop_coordinator(scene: Scene) -> None:
    """Shorter or longer than its session, drawn."""
    await _stand_still(scene, scene.one("coordinator"))


async def stop_worker(scene: Scene) -> None:
    await _stand_still(scene, scene.one("worker", "cpu"))


async def join(scene: Scene) -> None:
    """Scaling up, and down again."""
    name = await scene.start(scene.rng.choice(sorted(ROLES)))
    scene.note(f"start {name}")
    await scene.fleet.ready(name)
    scene.dismiss(name)


async def rolling(scene: Scene) -> None:
    """Everything is restarted, one after another."""
    for name in scene.all():
        scene.hurt(name, signal.SIGTERM)
        await asyncio.sleep(1.0)


async def kill_node(scene: Scene) -> None:
    node = scene.kafka.node(scene.rng.randint(1, scene.nodes))
    scene.note(f"SIGKILL node {node.number}")
    scene.nodes_failed = True
    await asyncio.to_thread(node.kill)
    await asyncio.sleep(2.0)
    await asyncio.to_thread(node.start)
    scene.note(f"node {node.number} is back")


async def stop_node(scene: Scene) -> None:
    node = scene.kafka.node(scene.rng.randint(1, scene.nodes))
    scene.note(f"SIGSTOP node {node.number}")
    scene.nodes_failed = True
    node.suspend()
    await asyncio.sleep(scene.rng.uniform(2.0, 8.0))
    node.resume()
    scene.note(f"SIGCONT node {node.number}")


async def no_nodes(scene: Scene) -> None:
    """Nobody answers at all for a while."""
    scene.note("SIGSTOP all nodes")
    scene.nodes_failed = True
    nodes = [scene.kafka.node(n) for n in range(1, scene.nodes + 1)]
    for node in nodes:
        node.suspend()
    await asyncio.sleep(scene.rng.uniform(2.0, 4.0))
    for node in nodes:
        node.resume()
    scene.note("SIGCONT all nodes")


async def _stand_still(scene: Scene, name: str) -> None:
    seconds = scene.rng.choice([SESSION_S / 2, SESSION_S + 3])
    scene.hurt(name, signal.SIGSTOP)
    await asyncio.sleep(seconds)
    scene.note(f"SIGCONT {name}")
    if scene.fleet.processes[name].returncode is None:
        scene.fleet.signal(name, signal.SIGCONT)


FAULTS: Final[dict[str, Callable[[Scene], Awaitable[None]]]] = {
    "kill-coordinator": kill_coordinator,
    "kill-worker": kill_worker,
    "stop-coordinator": stop_coordinator,
    "stop-worker": stop_worker,
    "join": join,
    "rolling": rolling,
    "kill-node": kill_node,
    "stop-node": stop_node,
    "no-nodes": no_nodes,
}
