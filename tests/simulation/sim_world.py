"""One simulated run: real coordinators and workers, a seeded schedule of what goes wrong."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, Final, Literal
from unittest.mock import patch

from msgspec import Struct, structs
from sim_checker import Promise, behind, check, unanswered
from sim_fuzz import mutate
from sim_questions import GARBAGE, POISON, REPLY_TOPIC, random_query
from sim_truth import LAYERS, Truth

from anabranch.config.settings import (
    Config,
    CoordinatorConfig,
    KafkaConfig,
    TopicsConfig,
    TypeConfig,
)
from anabranch.contract.codec import encode
from anabranch.contract.events import (
    HEADER_CLIENT,
    HEADER_TRACEPARENT,
    HEADER_TRACESTATE,
    ControlRecord,
    Query,
)
from anabranch.coordinator import Coordinator
from anabranch.dispatch.intake import Intake
from anabranch.kafka.topics import Topics, topic_specs
from anabranch.kafka.transport import Producer, Record, TopicPartition
from anabranch.testing import MemoryBroker, MemoryTransport, Network, VirtualClock, run
from anabranch.testing.processes import Body, Processes, ProcessLoop
from anabranch.worker import Worker

__all__ = ["KINDS", "Kind", "Outcome", "simulate"]

GROUPS: Final = ("io", "cpu")
FORWARDED: Final = (HEADER_CLIENT, HEADER_TRACEPARENT, HEADER_TRACESTATE)
START_S: Final = 8.0
GIVE_UP_S: Final = 150.0
TRANSACTION_MS: Final = 400.0
"""That an answer may wait for its transaction, and its transaction takes."""

CONFIG: Final = Config(
    kafka=KafkaConfig(),
    topics=TopicsConfig(queries=4, tasks=4),
    coordinator=CoordinatorConfig(reply_topics=[REPLY_TOPIC], drain_timeout_ms=2_000),
    types={
        "factual": TypeConfig(layers=["semantic", "graph"]),
        "planning": TypeConfig(layers=["semantic", "procedural", "graph"]),
        "temporal": TypeConfig(layers=["episodic", "semantic"]),
        "procedural": TypeConfig(layers=["procedural"]),
        "meta": TypeConfig(layers=["semantic", "graph", "episodic", "procedural"]),
    },
)


class Kind(Struct, frozen=True):
    """What goes wrong in a run, and what is promised all the same.

    Attributes:
        faults: what may happen, drawn evenly.
        roles: to whom.
        every_s: mean time between two faults.
        dies: whether a process may end by itself (its supervisor starts another).
        mutants: mutated copies of records of every topic, per query.
        damage: batches that nobody can unpack, on every topic, per query.
        poison: queries that crash every coordinator that starts them.
        backlog: queries that wait when the first process starts, half of them expired by then.
        mode: what is configured.
        stamps: CreateTime as on the embedded broker, where all processes share a machine.
        logs: what happens to logs, drawn evenly, as often as faults: `leader` (another one, with
            another clock), `retention`, `lost tail`.
    """

    promise: Promise
    faults: tuple[str, ...] = ()
    roles: tuple[str, ...] = ("coordinator", *GROUPS)
    every_s: float = 1.5
    stall_rate: float = 0.0
    dies: bool = False
    mutants: int = 0
    damage: float = 0.0
    poison: int = 0
    backlog: int = 0
    mode: Literal["at_least_once", "exactly_once"] = "at_least_once"
    stamps: str = "LogAppendTime"
    logs: tuple[str, ...] = ()


KINDS: Final[dict[str, Kind]] = {
    "calm": Kind(Promise(once=True, late_ms=50, fresh_ms=50)),
    "slow": Kind(Promise(once=True, late_ms=2_500, fresh_ms=1_700), stall_rate=0.02),
    "rolling": Kind(Promise(once=True, late_ms=3_000, fresh_ms=50), faults=("stop",)),
    "embedded": Kind(
        Promise(once=True, late_ms=None, fresh_ms=50),
        faults=("stop",),
        stamps="CreateTime",
    ),
    "fuzz": Kind(Promise(once=True, late_ms=None, fresh_ms=None, true=False), mutants=3),
    "workers": Kind(
        Promise(once=True, late_ms=50, fresh_ms=50),
        faults=("kill", "kill all", "stop", "cut", "freeze", "jump"),
        roles=GROUPS,
        dies=True,
    ),
    "set clocks": Kind(
        Promise(once=True, late_ms=None, fresh_ms=None, true=False),
        faults=("jump", "set the broker's clock"),
        every_s=2.5,
    ),
    "kills": Kind(
        Promise(once=False, late_ms=25_000, fresh_ms=1_700),
        faults=("kill", "kill", "stop", "kill all"),
        stall_rate=0.02,
    ),
    "damage": Kind(
        Promise(once=False, late_ms=25_000, fresh_ms=1_700),
        faults=("kill", "stop", "kill all"),
        damage=0.5,
    ),
    "poison": Kind(
        Promise(once=False, late_ms=None, fresh_ms=1_700), faults=("stop",), poison=2, dies=True
    ),
    "backlog": Kind(
        Promise(once=False, late_ms=None, fresh_ms=None),
        faults=("kill", "stop", "cut"),
        roles=("coordinator",),
        dies=True,
        backlog=300,
    ),
    "cuts": Kind(Promise(once=False, late_ms=25_000, fresh_ms=None), faults=("cut",), dies=True),
    "freezes": Kind(
        Promise(once=False, late_ms=25_000, fresh_ms=None), faults=("freeze",), dies=True
    ),
    "clocks": Kind(Promise(once=True, late_ms=200, fresh_ms=50), logs=("leader",)),
    "clocks and stops": Kind(
        # What was stamped by the leader before cannot be told apart after a takeover.
        Promise(once=True, late_ms=3_000, fresh_ms=50, repeats=False, patient=False),
        faults=("stop",),
        logs=("leader",),
    ),
    "retention": Kind(
        Promise(once=True, late_ms=3_000, fresh_ms=50, gone=True),
        faults=("stop",),
        logs=("retention",),
    ),
    "retention and kills": Kind(
        Promise(once=False, late_ms=None, fresh_ms=1_700, gone=True),
        faults=("kill", "kill all", "stop"),
        logs=("retention",),
    ),
    "lost tails": Kind(
        Promise(once=False, late_ms=None, fresh_ms=None, gone=True),
        faults=("kill", "kill all", "stop"),
        logs=("lost tail", "lost tail", "retention", "leader"),
        dies=True,
    ),
    "storm": Kind(
        Promise(once=False, late_ms=30_000, fresh_ms=None),
        faults=("kill", "kill", "kill all", "stop", "cut", "freeze", "jump"),
        every_s=1.0,
        stall_rate=0.02,
        dies=True,
    ),
}
TWICE: Final = (
    "calm", "rolling", "kills", "damage", "poison", "cuts", "freezes", "storm",
    "clocks and stops", "retention and kills", "lost tails",
)  # fmt: skip
"""Kinds that are there in both modes."""
KINDS |= {
    f"{name} exactly once": structs.replace(
        kind,
        mode="exactly_once",
        promise=structs.replace(
            kind.promise,
            once=True,
            late_ms=None if kind.promise.late_ms is None else kind.promise.late_ms + TRANSACTION_MS,
        ),
    )
    for name, kind in KINDS.items()
    if name in TWICE
}


class Outcome(Struct):
    """What came of a run."""

    violations: list[str]
    trace: list[str]
    digest: tuple[object, ...]
    """Equal for equal runs."""


def simulate(kind: str, seed: int, queries: int = 100) -> Outcome:
    """Run a seed and check what came of it."""

    async def main() -> Outcome:
        return await _World(KINDS[kind], seed, queries).run()

    return run(main(), ProcessLoop)


class _World:
    def __init__(self, kind: Kind, seed: int, queries: int) -> None:
        self._kind = kind
        self._rng = random.Random(seed)
        self._queries = queries
        network = Network(
            latency_ms=(0.1, self._rng.choice([0.5, 3.0, 10.0])),
            stall_rate=kind.stall_rate,
            stall_ms=(20, 800),
            seed=seed,
        )
        self._broker_clock = VirtualClock()
        self._broker = MemoryBroker(network, clock=self._broker_clock, kafka=CONFIG.kafka)
        self._processes = Processes(self._broker, self._ended)
        self._driver = self._broker.transport("driver", VirtualClock(skew_ms=-3_600_000))
        self._topics = Topics(CONFIG.namespace)
        self._clocks: dict[str, VirtualClock] = {}
        """Of those processes that are to run on."""
        self._truth = Truth(slower=self._rng.choice([1.0, 4.0, 10.0]))
        self._born = 0
        self._ending = False
        self.violations: list[str] = []
        self.trace: list[str] = []

    async def run(self) -> Outcome:
        read = Intake.read

        def crash_on_poison(intake: Intake, record: Record) -> Query:
            query = read(intake, record)
            if POISON in query.params:
                self._processes.crash()
            return query

        with patch.object(Intake, "read", crash_on_poison):
            return await self._run()

    async def _run(self) -> Outcome:
        asyncio.get_running_loop().set_exception_handler(self._unhandled)
        self._broker.create(REPLY_TOPIC, 1)
        for topic, state in topic_specs(CONFIG, GROUPS).items():
            settings = state.settings | {"message.timestamp.type": self._kind.stamps}
            self._broker.create(topic, state.partitions, settings)
        await self._ask_ahead()
        for role in ("coordinator", "coordinator", "io", "io", "cpu", "cpu"):
            self._start(role)
        await asyncio.sleep(START_S)
        await asyncio.gather(self._ask(), self._break(), self._change(), self._hurt_logs())
        await self._ask_on()
        await self._until(lambda: not unanswered(self._broker, CONFIG))
        await self._until(lambda: not behind(self._broker, CONFIG))
        await asyncio.sleep(3)
        await self._stop_all()
        self.violations += check(self._broker, CONFIG, self._truth, self._kind.promise)
        return Outcome(self.violations, self.trace, self._digest())

    # ── what happens ───────────────────────────────────────────────────────────────────────

    async def _ask_ahead(self) -> None:
        """Nobody is there yet."""
        producer, rng = self._driver.producer("ahead"), random.Random(self._kind.backlog)
        for number in range(self._kind.backlog):
            timeout_ms = rng.choice([1, 60_000])
            query = structs.replace(
                random_query(rng, number), id=f"w{number}", timeout_ms=timeout_ms
            )
            partition = rng.randrange(CONFIG.topics.queries)
            await producer.send(self._topics.queries, encode(query), partition=partition)

    async def _ask(self) -> None:
        producer = self._driver.producer("driver")
        rng = random.Random(self._rng.random())
        sent: list[tuple[Query, int]] = []
        per_s = rng.choice([10.0, 15.0, 50.0])
        poison = rng.sample(range(self._queries), self._kind.poison)
        for number in range(self._queries):
            await asyncio.sleep(rng.expovariate(per_s))
            partition = rng.randrange(CONFIG.topics.queries)
            what = rng.random()
            if number in poison:
                value = encode(Query(id=f"q{number}", type="factual", params={POISON: number}))
            elif what < 0.05:
                value = rng.choice(GARBAGE)
            elif what < 0.10 and sent:
                query, partition = rng.choice(sent)
                value = encode(query)
            else:
                query = random_query(rng, number)
                sent.append((query, partition))
                value = encode(query)
            await producer.send(self._topics.queries, value, partition=partition)
            if what > 0.97:  # as a transaction's end does
                self._broker.log(TopicPartition(self._topics.queries, partition)).append_marker()
            for _ in range(self._kind.mutants):
                await self._send_mutant(producer, rng)
            if self._kind.damage and rng.random() < self._kind.damage:
                self._damage(rng)

    async def _ask_on(self) -> None:
        """Once more everywhere: what grew back to where it was read is found by what comes next."""
        if "lost tail" not in self._kind.logs:
            return
        await asyncio.sleep(30)  # nobody is in a rebalance any more
        producer, rng = self._driver.producer("last"), random.Random(0)
        for partition in range(CONFIG.topics.queries):
            query = random_query(rng, self._queries + partition)
            await producer.send_and_wait(self._topics.queries, encode(query), partition=partition)

    async def _change(self) -> None:
        """Change what layers say, and a moment later order the caches to forget it."""
        producer = self._driver.producer("operator")
        rng = random.Random(self._rng.random())
        now_ms = VirtualClock().time_ms
        for _ in range(rng.randint(0, 4)):
            await asyncio.sleep(rng.expovariate(1.0))
            layer = rng.choice(sorted(LAYERS))
            self._truth.change(layer, now_ms())
            order = encode(ControlRecord(action="invalidate", layer=layer))
            await producer.send_and_wait(self._topics.control, order, key=layer.encode())
            self._truth.invalidated(layer, now_ms())

    async def _send_mutant(self, producer: Producer, rng: random.Random) -> None:
        """Forge a record. Nothing but the truth of answers may suffer."""
        topics = self._topics
        tasks = [topic for group in GROUPS for topic in topics.tasks_of(group)]
        common = [topics.queries, topics.partials, topics.health, topics.control]
        topic = rng.choice([*common, rng.choice(tasks)])
        if found := self._broker.records(topic)[-50:]:
            model = rng.choice(found)
            value = mutate(rng, model.value or b"")
            headers = model.headers
            if rng.random() < 0.03:  # what is forwarded must fit wherever it goes
                headers = [
                    (rng.choice(FORWARDED), b"x" * rng.choice((10_000, 1_000_000, 3_900_000)))
                ]
            await producer.send(
                topic, value, key=model.key, partition=model.partition, headers=headers
            )

    def _damage(self, rng: random.Random) -> None:
        """Put what nobody can unpack on any topic."""
        name = rng.choice([*self._topics.all_but_tasks, *self._topics.tasks_of(rng.choice(GROUPS))])
        log = self._broker.log(TopicPartition(name, rng.randrange(self._broker.count(name))))
        log.append_unreadable(rng.randbytes(30), self._broker.stamp(), rng.randint(1, 4))

    async def _break(self) -> None:
        rng = random.Random(self._rng.random())
        for _ in range(5 if self._kind.faults else 0):
            await asyncio.sleep(rng.expovariate(1 / self._kind.every_s))
            fault = rng.choice(self._kind.faults)
            running = [name for name in self._clocks if _role(name) in self._kind.roles]
            if running:
                await self._apply(fault, rng.choice(running), rng)

    async def _hurt_logs(self) -> None:
        rng = random.Random(self._rng.random())
        for _ in range(8 if self._kind.logs else 0):
            await asyncio.sleep(rng.expovariate(1 / self._kind.every_s))
            topic = rng.choice([self._topics.queries, self._topics.queries, self._topics.partials])
            log = self._broker.log(TopicPartition(topic, rng.randrange(CONFIG.topics.queries)))
            what = rng.choice(self._kind.logs)
            if what == "leader":
                ahead_ms = rng.choice([0, -3_600_000, 3_600_000, -4_000, 1_500])
                self._note(f"{log.partition} is led by a clock {ahead_ms} ms ahead")
                log.lead(ahead_ms)
            elif what == "retention":
                log.delete_before(log.end - rng.choice([0, 0, 1, 5]))
                self._note(f"{log.partition} begins at {log.start}")
            elif what == "lost tail":
                log.truncate(max(log.start, log.end - rng.choice([1, 2, 5, 20])))
                self._note(f"{log.partition} ends at {log.end}")

    async def _apply(self, fault: str, name: str, rng: random.Random) -> None:
        if fault == "kill":
            await self._kill(name, rng.choice([0.0, 1.0, 8.0]))
        elif fault == "kill all":
            for peer in [peer for peer in self._clocks if _role(peer) == _role(name)]:
                await self._kill(peer, rng.choice([0.0, 1.0, 8.0]))
        elif fault == "stop":
            self._note(f"stop {name}")
            del self._clocks[name]
            self._processes.stop(name)
            self._start(_role(name))
        elif fault == "cut":
            seconds = rng.choice([0.5, 3.0, 7.0, 12.0])
            self._note(f"cut {name} for {seconds} s")
            self._broker.cut(name, seconds)
        elif fault == "freeze":
            seconds = rng.choice([0.5, 4.0, 9.0])
            self._note(f"freeze {name} for {seconds} s")
            self._processes.freeze(name, seconds)
        elif fault == "jump":
            by_ms = rng.choice([-3_600_000.0, 3_600_000.0, -1_500.0])
            self._note(f"the clock of {name} jumps by {by_ms} ms")
            self._clocks[name].jump(by_ms)
        elif fault == "set the broker's clock":
            by_ms = rng.choice([-3_600_000.0, 3_600_000.0, -20_000.0])
            self._note(f"the broker's clock is set by {by_ms} ms")
            self._broker_clock.jump(by_ms)

    async def _kill(self, name: str, back_after_s: float) -> None:
        self._note(f"kill {name}")
        del self._clocks[name]
        await self._processes.kill(name)
        self._later(back_after_s, lambda: self._start(_role(name)))

    # ── processes ──────────────────────────────────────────────────────────────────────────

    def _start(self, role: str) -> None:
        if self._ending:
            return
        self._born += 1
        name = f"{role}-{self._born}"
        trusted = self._kind.stamps == "CreateTime"
        skew_ms = 0.0 if trusted else self._rng.choice([0.0, 0.0, 700.0, -3_600_000.0])
        clock = self._clocks[name] = VirtualClock(skew_ms=skew_ms)
        self._note(f"start {name}, its clock off by {skew_ms} ms")
        self._processes.start(name, self._body(role, name, clock), clock)

    def _body(self, role: str, name: str, clock: VirtualClock) -> Body:
        config = structs.replace(CONFIG, instance=name, mode=self._kind.mode)
        layers = self._truth.layers_of(role, self._born)

        async def coordinate(transport: MemoryTransport, stop: asyncio.Event) -> None:
            async with Coordinator(config, transport=transport, clock=clock):
                await stop.wait()

        async def work(transport: MemoryTransport, stop: asyncio.Event) -> None:
            async with Worker(config, role, layers, transport=transport, clock=clock):
                await stop.wait()

        return coordinate if role == "coordinator" else work

    def _ended(self, name: str, error: BaseException | None) -> None:
        """A process ended: as it was told, or its supervisor starts another."""
        if error is None and name not in self._clocks:
            return
        self._note(f"{name} ended: {error!r} {error.__cause__!r}" if error else f"{name} ended")
        if not self._kind.dies:
            self.violations.append(f"{name} ended by itself: {error!r}")
        if self._clocks.pop(name, None) is not None:
            self._later(1.0, lambda: self._start(_role(name)))

    def _unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.violations.append(f"unhandled: {context['message']}: {context.get('exception')!r}")

    async def _stop_all(self) -> None:
        self._ending = True
        self._clocks.clear()
        for name in self._processes.running:
            self._processes.stop(name)
        await self._until(lambda: not self._processes.running)
        await asyncio.sleep(2)
        self.violations += [f"{leak} was left behind" for leak in sorted(self._processes.leaked)]

    # ── details ────────────────────────────────────────────────────────────────────────────

    async def _until(self, condition: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + GIVE_UP_S
        while not condition() and loop.time() < give_up:  # noqa: ASYNC110
            await asyncio.sleep(0.5)
        if not condition():
            self.violations.append(f"waited in vain; running: {self._processes.running}")
            self.violations += behind(self._broker, CONFIG)

    def _later(self, seconds: float, what: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(seconds, what)

    def _note(self, what: str) -> None:
        self.trace.append(f"{asyncio.get_running_loop().time():8.3f} {what}")

    def _digest(self) -> tuple[object, ...]:
        results = self._broker.records(self._topics.results)
        partials = self._broker.records(self._topics.partials)
        return tuple((r.partition, r.offset, r.timestamp, r.key) for r in [*results, *partials])


def _role(name: str) -> str:
    return name.split("-")[0]
