"""A question whose workers die is given up at the third death; those beside it are answered."""

from __future__ import annotations

import asyncio
from collections import defaultdict

import pytest
from hybrid import Hybrid
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from records import FakeRecord

from anabranch.client import Client
from anabranch.config.settings import Config, TypeConfig, WorkerConfig
from anabranch.contract.codec import decode, encode
from anabranch.contract.events import Answer, Item, MemberHealth
from anabranch.coordinator import Coordinator
from anabranch.coordinator.background.worker_crashes import WorkerCrashes
from anabranch.coordinator.query.crash_tracker import DEATHS, CrashTracker
from anabranch.coordinator.query.open_queries import OpenQueries
from anabranch.coordinator.query.open_query import OpenQuery
from anabranch.coordinator.query.outbox import DeadLetterOut
from anabranch.dispatch.layer_registry import LayerRegistry
from anabranch.dispatch.routing import Route
from anabranch.kafka.topics import ensure_topics
from anabranch.layers.api import LayerSpec, Request, layer
from anabranch.runtime.supervisor import until
from anabranch.testing import MemoryBroker, VirtualClock, run
from anabranch.worker import Worker

MINUTE_MS = 60_000.0
APART_MS = 3_000.0
LONG = {"timeout_ms": 50_000}


def heard(directory: LayerRegistry, member: MemberHealth, at_ms: float, now_ms: float) -> None:
    key = f"member/{member.role}/{member.instance}".encode()
    directory.learn(FakeRecord(encode(member), key=key, timestamp=int(at_ms)), now_ms)


def worker(name: str, *, group: str = "io", state: str = "ready") -> MemberHealth:
    return MemberHealth(name, "worker", state, group=group, partitions=[0, 1, 2, 3])  # type: ignore[arg-type]


def die(world: Hybrid, name: str, *, state: str = "ready") -> list[DeadLetterOut]:
    """A worker of `io` is heard of for the last time; what is given up at its death."""
    heard(world.parts.registry, worker(name, state=state), world.now_ms, world.now_ms)
    silence(world)
    before = len(world.letters)
    world.collect()
    return world.letters[before:]


def look(world: Hybrid) -> None:
    parts = world.parts
    WorkerCrashes(parts.registry.members, parts.crashes, parts.owned).look(world.now_ms)


def silence(world: Hybrid) -> None:
    """Nobody but the coordinator is heard for a while."""
    world.now_ms += 3_500
    for _ in range(4):
        world.parts.registry.members.beat()
    look(world)


def told(letter: DeadLetterOut) -> Answer:
    assert letter.answer is not None
    return decode(letter.answer.value, Answer)


def test_the_third_death_is_a_dead_letter_and_a_failed_answer() -> None:
    world = Hybrid()
    poison = world.ask("a", **LONG)
    assert die(world, "w1") == die(world, "w2") == []
    (letter,) = die(world, "w3")
    assert "3 workers died" in letter.reason
    assert letter.record.offset == 0
    answer = told(letter)
    assert (answer.id, answer.status) == (poison, "failed")
    assert answer.error is not None
    assert answer.error.code == "quarantined"


def test_a_thousand_that_say_they_read_the_same_and_die_cost_what_two_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, told = Hybrid(), list[int]()
    for n in range(20):
        world.ask("a", n=n, **LONG)
    on_death = OpenQueries.on_death

    def count(queries: OpenQueries, query: OpenQuery, routes: set[Route], now_ms: float) -> None:
        told.append(query.offset)
        on_death(queries, query, routes, now_ms)

    monkeypatch.setattr(OpenQueries, "on_death", count)
    for n in range(1_000):
        heard(world.parts.registry, worker(f"w{n}"), world.now_ms, world.now_ms)
    silence(world)
    assert sorted(told) == [offset for offset in range(20) for _ in range(2)]
    assert all(
        len(mark.workers) <= 2 for marks in world.parts.crashes._marks.values() for mark in marks
    )
    for n in range(1_000):
        heard(world.parts.registry, worker(f"w{n}"), world.now_ms, world.now_ms)
    look(world)
    assert not world.parts.crashes._marks


def test_a_long_question_is_remembered_by_its_digest() -> None:
    world = Hybrid()
    world.ask("a", params={"text": "x" * 500_000}, **LONG)
    die(world, "w1")
    assert [len(name) for name in world.parts.crashes._marks] == [64]


def test_it_is_not_asked_again_for_ten_minutes() -> None:
    world = Hybrid()
    world.ask("a", **LONG)
    for name in ("w1", "w2", "w3"):
        die(world, name)
    world.sent.clear()
    world.ask("a", **LONG)
    assert not world.sent
    assert len(world.letters) == 2
    world.now_ms += 10 * MINUTE_MS
    world.ask("a", **LONG)
    assert world.asked() == ["a"]


def test_those_who_wait_for_the_same_question_are_given_up_with_it() -> None:
    world = Hybrid()
    world.ask("a", **LONG)
    world.ask("a", **LONG)
    die(world, "w1")
    die(world, "w2")
    world.sent.clear()
    assert len(die(world, "w3")) == 2
    assert not world.sent, "nobody leads on"


def test_whoever_is_answered_between_two_deaths_is_cleared() -> None:
    world = Hybrid()
    innocent = world.ask("a", **LONG)
    die(world, "w1")
    die(world, "w2")
    world.reply("a", to=innocent)
    world.ask("a", max_age_ms=0, **LONG)
    assert die(world, "w3") == []
    assert world.asked() == ["a"]


def test_workers_that_die_together_are_one_death() -> None:
    """Of another cause: a machine that was lost, or a coordinator that heard nobody for a while."""
    world = Hybrid()
    world.ask("a", **LONG)
    for name in ("w1", "w2", "w3", "w4"):
        heard(world.parts.registry, worker(name), world.now_ms, world.now_ms)
    assert die(world, "w5") == []
    assert die(world, "w6") == []
    assert len(die(world, "w7")) == 1


def test_only_what_the_worker_may_have_read_is_marked() -> None:
    world = Hybrid()
    world.ask("d", **LONG)  # of another group
    for name in ("w1", "w2"):
        die(world, name)
    heard(world.parts.registry, worker("w3"), world.now_ms, world.now_ms)
    world.now_ms += 1_500
    late = world.ask("a", **LONG)
    silence(world)
    for name in ("w4", "w5"):
        assert die(world, name) == []
    assert late not in world.answers


def test_deaths_of_a_condemned_questions_last_task_mark_nobody_else() -> None:
    world = Hybrid()
    world.ask("a", **LONG)
    for name in ("w1", "w2", "w3"):
        die(world, name)
    world.ask("a", n=2, **LONG)
    for name in ("w4", "w5", "w6"):
        assert die(world, name) == []
    world.after(50_000)  # all of them have expired
    world.ask("a", n=3, **LONG)
    assert die(world, "w7") == die(world, "w8") == []
    assert len(die(world, "w9")) == 1


def test_a_worker_that_drained_did_not_die() -> None:
    world = Hybrid()
    world.ask("a", **LONG)
    for name in ("w1", "w2", "w3", "w4"):
        assert die(world, name, state="draining") == []


def test_the_last_words_of_those_who_died_long_ago_are_no_deaths() -> None:
    directory = LayerRegistry()
    heard(directory, worker("old"), at_ms=1_000, now_ms=100_000)
    heard(directory, worker("young"), at_ms=99_000, now_ms=100_000)
    assert [member.instance for member in directory.members.workers("io", 100_000)] == ["young"]
    for _ in range(3):
        directory.members.beat()
        assert directory.members.deaths() == []
    directory.members.beat()
    (death,) = directory.members.deaths()
    assert death[0].instance == "young"
    assert directory.members.deaths() == [], "each once"


QUESTIONS = st.sampled_from([("a",), ("b",), ("c",)])
NAMES = st.sampled_from(["w1", "w2", "w3"])
ASKED = st.sets(st.sampled_from(["x", "y"]), min_size=1)


class MortalityMachine(RuleBasedStateMachine):
    """Against a list of all deaths that ever were, those of one cause once."""

    def __init__(self) -> None:
        super().__init__()
        self.mortality = CrashTracker(APART_MS)
        self.now_ms = 0.0
        self.deaths: dict[tuple[str], list[tuple[float, set[str], set[str]]]] = defaultdict(list)

    @rule(worker=NAMES, had=st.dictionaries(QUESTIONS, ASKED))
    def worker_dies(self, worker: str, had: dict[tuple[str], set[str]]) -> None:
        self.mortality.died(worker, had, self.now_ms)
        for question, layers in had.items():
            counted = self._left(question)
            if not counted or self.now_ms - counted[-1][0] >= APART_MS:
                self.deaths[question].append((self.now_ms, {worker}, set(layers)))
            else:
                counted[-1][1].add(worker)
                counted[-1][2].update(layers)

    @rule(question=QUESTIONS, layer=st.sampled_from(["x", "y"]))
    def a_layer_ends(self, question: tuple[str], layer: str) -> None:
        self.mortality.survived(question, layer)
        for _, _, layers in self.deaths[question]:
            layers.discard(layer)

    @rule(worker=NAMES)
    def worker_returns(self, worker: str) -> None:
        self.mortality.returned(worker)
        for deaths in self.deaths.values():
            for _, workers, _ in deaths:
                workers.discard(worker)

    @rule(ms=st.sampled_from([1_000.0, APART_MS, *(n * MINUTE_MS for n in range(1, 12))]))
    def time_passes(self, ms: float) -> None:
        self.now_ms += ms

    @invariant()
    def condemned_are_those_with_three_deaths_in_ten_minutes(self) -> None:
        for question in self.deaths:
            recent = [at for at, _, _ in self._left(question) if self.now_ms - at < 10 * MINUTE_MS]
            assert self.mortality.is_quarantined(question, self.now_ms) == (len(recent) >= DEATHS)

    def _left(self, question: tuple[str]) -> list[tuple[float, set[str], set[str]]]:
        """Deaths that are still laid to somebody; of more than count, the latest."""
        left = [death for death in self.deaths[question] if death[1] and death[2]]
        self.deaths[question] = left[-DEATHS:]
        return self.deaths[question]


TestMortality = MortalityMachine.TestCase


def test_memory_is_bounded() -> None:
    mortality = CrashTracker(APART_MS)
    for n in range(30_000):
        mortality.died("w", {("q", n): {"a"}}, 0.0)
    assert len(mortality._marks) == 10_000


def test_an_answer_of_one_layer_clears_it_and_not_the_one_that_kills() -> None:
    world = Hybrid()
    for name in ("w1", "w2"):
        world.ask("a", "b", n=1, max_age_ms=0, **LONG)
        die(world, name)
        world.reply("b")
    world.ask("a", "b", n=1, max_age_ms=0, **LONG)
    assert len(die(world, "w3")) == 3, "of layer a"


def test_one_that_was_only_silent_takes_its_marks_back() -> None:
    world = Hybrid()
    world.ask("a", **LONG)
    for _ in range(2 * DEATHS):
        assert die(world, "w1") == []
    assert die(world, "w2") == []
    assert len(die(world, "w3")) == 1, "nobody heard of w1 after its last silence, nor of these"


def test_another_process_under_the_same_name_is_another_death() -> None:
    world = Hybrid()
    world.ask("a", **LONG)
    for _ in range(DEATHS - 1):
        assert die(world, "w1") == []
        heard(world.parts.registry, worker("w1", state="starting"), world.now_ms, world.now_ms)
    assert len(die(world, "w1")) == 1


def test_one_that_is_started_again_at_once_under_its_name_has_died_all_the_same() -> None:
    world = Hybrid()
    world.ask("a", **LONG)
    directory = world.parts.registry
    for death in range(DEATHS):
        assert not world.letters
        heard(directory, worker("w1"), world.now_ms, world.now_ms)
        world.now_ms += APART_MS if death else 500
        heard(directory, worker("w1", state="starting"), world.now_ms, world.now_ms)
        look(world)
        world.now_ms += APART_MS
        world.collect()
    assert len(world.letters) == 1


def test_one_that_drained_and_starts_again_did_not_die() -> None:
    directory = LayerRegistry()
    for state in ("ready", "draining", "starting", "starting", "ready"):
        heard(directory, worker("w1", state=state), 0, 0)
    assert directory.members.deaths() == []


@pytest.mark.parametrize("seconds", [4.0, 5.5])
def test_a_coordinator_that_hears_nobody_concludes_nothing(seconds: float) -> None:
    """It was cut off three times: 42 questions that were open are answered all the same."""

    @layer("slow")
    async def slow(request: Request) -> list[Item]:
        await asyncio.sleep(40)
        return [Item("urn:1", 1.0)]

    async def body() -> None:
        broker, clock = MemoryBroker(), VirtualClock()
        config = Config(types={"t": TypeConfig(layers=["slow"])}, worker=WorkerConfig(slots=64))
        await ensure_topics(broker.transport(), config, ["default"])
        async with (
            Worker(config, layers=[LayerSpec(slow)], transport=broker.transport("w"), clock=clock),
            Coordinator(config, transport=broker.transport("c"), clock=clock) as coordinator,
            Client(config, transport=broker.transport("client")) as client,
        ):
            await until(lambda: coordinator.query.registry.descriptor("slow"))
            asking = [
                asyncio.create_task(client.ask("t", {"n": n}, timeout_ms=55_000)) for n in range(42)
            ]
            await asyncio.sleep(2)
            for _ in range(DEATHS):
                broker.cut("c", seconds)
                await asyncio.sleep(seconds + 3)
            assert {(await answer).status for answer in asking} == {"complete"}

    run(body())
