"""What a run is made of: a cluster, a network before it, and a fleet that is kept alive."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Final

from chaos_disk import Disk
from chaos_proxy import Network, proxied
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from fleet import Fleet
from msgspec import Struct

from anabranch.config.settings import Config
from anabranch.dev.local_kafka import HOST, LocalKafka
from anabranch.kafka.client import KafkaTransport
from anabranch.kafka.topics import ensure_topics
from anabranch.runtime.supervisor import until

__all__ = ["PARAMS", "ROLES", "SESSION_S", "Death", "Scene", "Seat", "standing"]

SESSION_S: Final = 6.0
PARAMS: Final = 300
"""Questions are asked again after so many: the cache answers some of them."""
ROLES: Final[dict[str, tuple[str, ...]]] = {
    "coordinator": ("coordinator",),
    "worker": ("worker",),
    "cpu": ("worker", "--group", "cpu"),
}
FLEET: Final = ("coordinator", "coordinator", "worker", "worker", "cpu", "cpu")
EXCUSED_S: Final = 60.0
"""For so long after nodes failed a process may end: request timeout, session, rebalance."""
CALM_S: Final = 8.0
"""Between two outages: one after another without a pause are one, and longer than was meant."""
SKEW: Final = str(Path(__file__).with_name("skew"))


class Death(Struct):
    """A coordinator that stopped for longer than its session: when, and what it held."""

    at_s: float
    partitions: list[int]


class Seat:
    """A place in the fleet; who sits there changes, and faults are drawn by seat."""

    def __init__(self, role: str) -> None:
        self.role = role
        self.name = ""
        self.clock_s = 0
        """How far off the clock of whoever sits down next is."""


class Scene:
    """Processes and nodes, kept alive: what ends is started again, under a new name."""

    def __init__(
        self, fleet: Fleet, kafka: LocalKafka, disk: Disk, network: Network, config: Config
    ) -> None:
        self.fleet = fleet
        self.kafka = kafka
        self.disk = disk
        self.network = network
        self.config = config
        self.seats = [Seat(role) for role in FLEET]
        self.guests: list[Seat] = []
        """Kept alive likewise, but no other fault draws them."""
        self._node_lock = asyncio.Lock()
        """One fault of nodes at a time: two of three are needed."""
        self.deaths: list[Death] = []
        self.outages: list[tuple[float, float]] = []
        """When nodes or their connections failed, from and to, in epoch seconds."""
        self.disturbed: list[tuple[float, float]] = []
        """When faults happened, likewise."""
        self.told: list[str] = []
        self.failures: list[str] = []
        """Exits that nobody caused."""
        self._numbers = count(1)
        self._hurt: set[str] = set()

    async def sit(self, seat: Seat) -> None:
        """Start whoever takes this seat."""
        name = f"{seat.role}-{next(self._numbers)}"
        environ = {"PYTHONPATH": SKEW, "CHAOS_CLOCK_S": str(seat.clock_s)} if seat.clock_s else {}
        await self.fleet.start(name, *ROLES[seat.role], **environ)
        seat.name = name

    async def keep(self) -> None:
        """As a supervisor does: start another for each that ended."""
        while True:
            await asyncio.sleep(0.5)
            for seat in [*self.seats, *self.guests]:
                if not self.alive(seat.name):
                    self._account(seat.name)
                    await self.sit(seat)

    def of(self, *roles: str) -> list[Seat]:
        """The seats of these roles."""
        return [seat for seat in self.seats if seat.role in roles]

    def alive(self, name: str) -> bool:
        """Whether a process has not ended; it may stand still."""
        return self.fleet.processes[name].returncode is None

    async def ready(self, seat: Seat, after: str = "") -> None:
        """Wait until somebody else than `after` sits there and is ready."""
        async with asyncio.timeout(180):  # nodes may be away meanwhile
            await until(lambda: seat.name != after and self.fleet.is_ready(seat.name), 0.1)

    def hurt(self, name: str, how: signal.Signals) -> None:
        """A signal after which its end surprises nobody."""
        self.note(f"{how.name} {name}")
        self.excuse(name)
        if self.alive(name):
            self.fleet.signal(name, how)

    def excuse(self, name: str) -> None:
        """It may end now."""
        self._hurt.add(name)

    async def dies(self, name: str) -> None:
        """Remember what a coordinator holds that is about to stop for good, or for long."""
        if name.startswith("coordinator"):
            held = await asyncio.to_thread(self._held_by, name)
            self.deaths.append(Death(time.time(), held))

    def note(self, what: str) -> None:
        """One line of the run's story."""
        self.told.append(f"{time.strftime('%H:%M:%S')} {what}")

    @asynccontextmanager
    async def outage(self, what: str) -> AsyncIterator[None]:
        """Nodes or connections fail inside; answers may be as late as this takes."""
        async with self._node_lock:
            self.note(what)
            begin = time.time()
            try:
                yield
            finally:
                self.outages.append((begin, time.time()))
                self.note(f"over: {what}")
            await asyncio.sleep(CALM_S)

    def _account(self, name: str) -> None:
        code = self.fleet.processes[name].returncode
        last = (self.fleet.log(name).read_text().splitlines() or [""])[-1]
        self.note(f"{name} ended with {code}: {last}")
        recently = time.time() - EXCUSED_S
        if name in self._hurt or self._node_lock.locked():
            return
        if not any(end > recently for _, end in self.outages):
            self.failures.append(f"{name} ended with {code}: {last}")

    def _held_by(self, name: str) -> list[int]:
        """Partitions of `queries` in a coordinator's hands, as the group has it."""
        nodes = ",".join(f"{HOST}:{node.broker_port}" for node in self.kafka.nodes)
        admin = AdminClient({"bootstrap.servers": nodes, "log_level": 0})
        group = f"{self.config.namespace}coordinators"
        try:
            found = admin.describe_consumer_groups([group], request_timeout=3)[group].result()
        except KafkaException:
            return []  # nodes are down: what is not known is not measured
        return [
            tp.partition
            for member in found.members
            if member.client_id == name and member.assignment
            for tp in member.assignment.topic_partitions
        ]


@asynccontextmanager
async def standing(
    path: Path, kafka: LocalKafka, disk: Disk, config: Config
) -> AsyncIterator[Scene]:
    """Two coordinators and four workers, ready; and nothing left of them afterwards."""
    fleet = Fleet(path)
    async with proxied(kafka.nodes) as network:
        scene = Scene(fleet, kafka, disk, network, config)
        await ensure_topics(KafkaTransport(config.kafka), config, config.groups)
        try:
            for seat in scene.seats:
                await scene.sit(seat)
            await fleet.ready()
            yield scene
        finally:
            await fleet.kill_all()
