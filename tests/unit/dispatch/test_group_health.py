"""How busy groups are: computed when a member is heard or falls silent, and never stale."""

from __future__ import annotations

from typing import Literal

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from anabranch.contract.events import MemberHealth
from anabranch.contract.plan import GroupLoad
from anabranch.dispatch.group_health import (
    MAX_PARTITIONS_HELD,
    MEMBER_SILENCE_MS,
    GroupHealth,
)

State = Literal["starting", "ready", "draining", "stopped"]
GROUPS = ("io", "cpu")


def worker(name: str, group: str = "io", queue_ms: float = 0) -> MemberHealth:
    return MemberHealth(name, "worker", "ready", group, stats={"queue_ms": queue_ms})


def test_between_two_words_of_a_group_its_load_is_the_same_object() -> None:
    health = GroupHealth()
    health.hear("w1", worker("w1", queue_ms=10.0), 0.0)
    load = health.load("io", 1.0)
    health.hear("w2", worker("w2", group="cpu"), 2.0)
    assert health.load("io", 3.0) is load
    health.hear("w1", worker("w1", queue_ms=30.0), 4.0)
    assert health.load("io", 4.0) == GroupLoad(1, 30.0)


def test_a_load_is_without_who_fell_silent_from_that_moment_on() -> None:
    health = GroupHealth()
    health.hear("w1", worker("w1", queue_ms=10.0), 0.0)
    health.hear("w2", worker("w2", queue_ms=30.0), 1.0)
    assert health.load("io", MEMBER_SILENCE_MS - 1.0) == GroupLoad(2, 20.0)
    assert health.load("io", MEMBER_SILENCE_MS) == GroupLoad(1, 30.0)
    assert health.load("io", MEMBER_SILENCE_MS + 1.0) == GroupLoad(0)
    assert health.count_workers(MEMBER_SILENCE_MS) == 1


def test_a_clock_that_is_set_back_brings_them_back() -> None:
    health = GroupHealth()
    health.hear("w1", worker("w1"), 0.0)
    assert health.load("io", 10_000.0) == GroupLoad(0)
    assert health.load("io", 1.0) == GroupLoad(1)


def test_who_starts_anew_under_the_name_of_one_that_worked_has_replaced_it() -> None:
    health = GroupHealth()
    for state, dead in (("starting", []), ("ready", []), ("ready", []), ("starting", ["w1"])):
        health.hear("w1", MemberHealth("w1", "worker", state, "io"), 5.0)  # type: ignore[arg-type]
        assert [member.instance for member, _ in health.deaths()] == dead


def test_partitions_are_told_again_when_others_have_given_theirs_back() -> None:
    health, all_of_them = GroupHealth(), [0] * MAX_PARTITIONS_HELD
    for _ in range(3):
        for key in ("w1", "w2"):
            said = MemberHealth(key, "worker", "ready", "io", partitions=all_of_them)
            health.hear(key, said, 0.0)
        assert [len(it.partitions) for it in health.workers("io", 0.0)] == [MAX_PARTITIONS_HELD, 0]
        health.forget("w1")
        health.forget("w2")


class GroupHealthMachine(RuleBasedStateMachine):
    """Against the last word of each member, counted anew each time."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 0.0
        self.health = GroupHealth(lambda: self.now_ms)
        self.words: dict[str, tuple[float, int, MemberHealth]] = {}
        self.beats = 0

    @rule(
        key=st.sampled_from("abc"),
        group=st.sampled_from(GROUPS),
        state=st.sampled_from(["starting", "ready", "draining", "stopped"]),
        role=st.sampled_from(["worker", "worker", "coordinator"]),
        queue_ms=st.integers(0, 100),
    )
    def hear(
        self, key: str, group: str, state: State, role: Literal["worker"], queue_ms: float
    ) -> None:
        word = MemberHealth(key, role, state, group, stats={"queue_ms": queue_ms})
        self.words[key] = (self.now_ms, self.beats, word)
        assert self.health.hear(key, word, self.now_ms)

    @rule(key=st.sampled_from("abc"))
    def forget(self, key: str) -> None:
        self.words.pop(key, None)
        self.health.forget(key)

    @rule(ms=st.sampled_from([1, 500, MEMBER_SILENCE_MS - 1, MEMBER_SILENCE_MS]))
    def wait(self, ms: int) -> None:
        self.now_ms += ms

    @rule()
    def beat(self) -> None:
        self.beats += 1
        self.health.beat()
        self.health.deaths()
        self.words = {key: it for key, it in self.words.items() if self.beats <= it[1] + 3}

    @invariant()
    def loads_are_those_of_who_lives(self) -> None:
        total = 0
        for group in GROUPS:
            waits = [
                word.stats["queue_ms"]
                for at_ms, _, word in self.words.values()
                if word.group == group
                and word.role == "worker"
                and word.state in ("starting", "ready")
                and self.now_ms - at_ms < MEMBER_SILENCE_MS
            ]
            mean_ms = sum(waits) / len(waits) if waits else 0.0
            assert self.health.load(group, self.now_ms) == GroupLoad(len(waits), mean_ms)
            assert len(self.health.workers(group, self.now_ms)) == len(waits)
            total += len(waits)
        assert self.health.count_workers(self.now_ms) == total
        workers = {word.group for _, _, word in self.words.values() if word.role == "worker"}
        assert {group for group in GROUPS if self.health.is_staffed(group)} == workers


GroupHealthMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestGroupHealth = GroupHealthMachine.TestCase
