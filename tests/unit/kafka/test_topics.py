"""The topics that a configuration needs, how others differ, and how they come to be."""

from __future__ import annotations

import asyncio
import itertools
import shlex
from collections.abc import Collection, Mapping
from typing import Any

import pytest

from anabranch.config.settings import Config, KafkaConfig, LayerConfig, TopicsConfig
from anabranch.contract.codec import MAX_VALUE_BYTES
from anabranch.contract.events import PRIORITIES
from anabranch.errors import TopicError, TopicsOnFirstUse
from anabranch.kafka.topics import (
    Topics,
    conflicts,
    differences,
    ensure_topics,
    find_topics,
    kafka_topics_commands,
    topic_specs,
)
from anabranch.kafka.transport import TopicState

GROUPS = ("cpu", "io")
TOPICS = Topics("anabranch.")


def specs(config: Config | None = None) -> dict[str, TopicState]:
    return topic_specs(config or Config(), GROUPS)


def test_every_name_carries_the_namespace() -> None:
    topics = Topics("team.a.")
    assert topics.queries == "team.a.queries"
    assert topics.tasks("io", "low") == "team.a.tasks.io.low"
    wanted = topic_specs(Config(namespace="team.a."), GROUPS)
    assert all(name.startswith("team.a.") for name in wanted)


def test_there_is_a_task_topic_for_every_group_and_priority() -> None:
    tasks = {name for name in specs() if ".tasks." in name}
    assert tasks == {TOPICS.tasks(g, p) for g in GROUPS for p in PRIORITIES}


def test_queries_partials_and_results_always_have_as_many_partitions_as_each_other() -> None:
    wanted = specs(Config(topics=TopicsConfig(queries=7, tasks=3)))
    assert [wanted[n].partitions for n in (TOPICS.queries, TOPICS.partials, TOPICS.results)] == [
        7
    ] * 3
    assert {wanted[n].partitions for g in GROUPS for n in TOPICS.tasks_of(g)} == {3}


def test_partitions_are_as_designed_unless_configured() -> None:
    wanted = specs()
    assert wanted[TOPICS.queries].partitions == 12
    assert wanted[TOPICS.tasks("io", "high")].partitions == 20
    assert wanted[TOPICS.health].partitions == wanted[TOPICS.control].partitions == 1


def test_the_broker_stamps_every_record() -> None:
    assert {s.settings["message.timestamp.type"] for s in specs().values()} == {"LogAppendTime"}


def test_what_is_too_large_to_decode_still_gets_to_a_coordinator_and_to_the_dlq() -> None:
    wanted = specs()
    query = int(wanted[TOPICS.queries].settings["max.message.bytes"])
    assert query > 2 * MAX_VALUE_BYTES
    assert int(wanted[TOPICS.dlq].settings["max.message.bytes"]) > query


def test_health_is_compacted_control_is_also_deleted_and_the_rest_is_kept_for_a_while() -> None:
    policies = {name: state.settings["cleanup.policy"] for name, state in specs().items()}
    assert policies.pop(TOPICS.health) == "compact"
    assert policies.pop(TOPICS.control) == "compact,delete"
    assert set(policies.values()) == {"delete"}
    assert "retention.ms" not in specs()[TOPICS.health].settings


def test_control_is_kept_longer_than_the_longest_ttl() -> None:
    ttl_ms = 90 * 86_400_000
    config = Config(layers={"x": LayerConfig(plugin="p", ttl_ms=ttl_ms)})
    assert int(specs(config)[TOPICS.control].settings["retention.ms"]) > ttl_ms


@pytest.mark.parametrize(("replication", "found"), [(-1, None), (1, None), (3, "2")])
def test_with_three_replicas_two_must_have_a_record(replication: int, found: str | None) -> None:
    wanted = specs(Config(kafka=KafkaConfig(replication=replication)))
    assert {s.settings.get("min.insync.replicas") for s in wanted.values()} == {found}


def test_what_is_as_wanted_does_not_differ() -> None:
    assert differences(specs(), specs()) == []
    assert conflicts(TOPICS, GROUPS, specs()) == []


def test_the_order_of_cleanup_policies_is_no_difference() -> None:
    found = {"t": TopicState(1, {"cleanup.policy": "delete,compact"})}
    assert differences({"t": TopicState(1, {"cleanup.policy": "compact,delete"})}, found) == []


def test_settings_that_the_broker_does_not_tell_are_not_compared() -> None:
    assert differences({"t": TopicState(1, {"a": "b"})}, {"t": TopicState(1, {})}) == []


def test_each_difference_says_what_to_do() -> None:
    wanted = {
        name: TopicState(12, {"retention.ms": "5"}) for name in ("gone", "few", "many", "set")
    }
    found = {
        "few": TopicState(4, {"retention.ms": "5"}),
        "many": TopicState(13, {"retention.ms": "5"}),
        "set": TopicState(12, {"retention.ms": "6"}),
    }
    gone, few, many, setting = differences(wanted, found)
    assert gone.startswith("gone is missing; create it with `anabranch topics`")
    assert few.startswith("few has 4 partitions where 12 are wanted; add them with kafka-topics.sh")
    assert many.startswith("many has 13 partitions where 12 are wanted; write 13 in [topics]")
    assert setting.startswith("set has retention.ms = 6 where 5 is wanted; change it with")
    assert setting.endswith("--add-config retention.ms=[5]")


@pytest.mark.parametrize("name", [TOPICS.partials, TOPICS.tasks("io", "low")])
def test_unequal_partitions_are_in_the_way(name: str) -> None:
    found = specs() | {name: TopicState(5, {})}
    (sentence,) = conflicts(TOPICS, GROUPS, found)
    assert f"{name} has 5" in sentence
    assert "as many as each other" in sentence


def test_four_partitions_everywhere_are_not_in_the_way() -> None:
    found = {name: TopicState(4, {}) for name in specs()}
    assert conflicts(TOPICS, GROUPS, found) == []


@pytest.mark.parametrize("name", [TOPICS.results, TOPICS.health, TOPICS.tasks("cpu", "critical")])
def test_a_missing_topic_is_in_the_way(name: str) -> None:
    found = {key: state for key, state in specs().items() if key != name}
    assert f"{name} is missing" in conflicts(TOPICS, GROUPS, found)


def test_the_printed_commands_hold_every_setting() -> None:
    wanted = specs()
    commands = [shlex.split(c) for c in kafka_topics_commands(wanted, "b:9092", 3)]
    for command, (name, state) in zip(commands, wanted.items(), strict=True):
        options = list(itertools.pairwise(command))
        assert ("--topic", name) in options
        assert ("--partitions", str(state.partitions)) in options
        assert ("--replication-factor", "3") in options
        assert {v for k, v in options if k == "--config"} == {
            f"{k}={v}" for k, v in state.settings.items()
        }


def test_the_brokers_own_replication_is_not_spelled_out() -> None:
    assert not any("--replication" in c for c in kafka_topics_commands(specs(), "b:9092"))


class FakeBroker:
    """Topics in a dict, behind just what `ensure_topics` uses of a `Transport`."""

    def __init__(self, *, creates: bool = True, touches: bool = False, late: int = 0) -> None:
        self.there: dict[str, TopicState] = {}
        self.creates, self.touches, self.late = creates, touches, late
        self.started = 0
        self.replication: int | None = None

    def admin(self) -> Any:
        return self

    def producer(self, name: str) -> Any:
        return self

    async def start(self) -> None:
        self.started += 1

    async def stop(self) -> None:
        self.started -= 1

    async def topics(self, names: Collection[str]) -> dict[str, TopicState]:
        if self.there and self.late:
            self.late -= 1
            return {}
        return {name: self.there[name] for name in names if name in self.there}

    async def create(self, topics: Mapping[str, TopicState], replication: int) -> None:
        if not self.creates:
            raise TopicsOnFirstUse if self.touches else TopicError("cannot be created here")
        self.replication = replication
        self.there |= {n: s for n, s in topics.items() if n not in self.there}

    async def partitions(self, topic: str) -> int:
        return self.there.setdefault(topic, TopicState(4, {})).partitions


async def test_missing_topics_are_created_and_clients_closed() -> None:
    broker = FakeBroker()
    config = Config(kafka=KafkaConfig(replication=3))
    found = await ensure_topics(broker, config, GROUPS)  # type: ignore[arg-type]
    assert found == broker.there == topic_specs(config, GROUPS)
    assert broker.replication == 3
    assert broker.started == 0


async def test_topics_that_exist_are_left_alone() -> None:
    broker = FakeBroker(creates=False)
    broker.there = specs()
    assert await ensure_topics(broker, Config(), GROUPS) == specs()  # type: ignore[arg-type]


async def test_looking_creates_nothing() -> None:
    broker = FakeBroker()
    assert await find_topics(broker, specs()) == {}  # type: ignore[arg-type]
    assert broker.there == {}
    assert broker.started == 0


async def test_a_broker_that_makes_topics_on_first_use_is_enough() -> None:
    broker = FakeBroker(creates=False, touches=True)
    found = await ensure_topics(broker, Config(), GROUPS)  # type: ignore[arg-type]
    assert found == {name: TopicState(4, {}) for name in specs()}
    assert broker.started == 0


async def test_a_refusal_to_create_is_told_and_no_topic_is_made_by_asking_for_it() -> None:
    broker = FakeBroker(creates=False)
    with pytest.raises(TopicError, match="cannot be created here"):
        await ensure_topics(broker, Config(), GROUPS)  # type: ignore[arg-type]
    assert broker.there == {}
    assert broker.started == 0


async def test_topics_that_become_visible_late_are_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("anabranch.kafka.topics.VISIBLE_POLL_S", 0)
    broker = FakeBroker(late=3)
    async with asyncio.timeout(60):
        assert await ensure_topics(broker, Config(), GROUPS) == specs()  # type: ignore[arg-type]
    assert broker.late == 0


async def test_topics_that_do_not_match_each_other_are_refused() -> None:
    broker = FakeBroker()
    broker.there = specs() | {TOPICS.results: TopicState(3, {})}
    with pytest.raises(TopicError, match="as many as each other"):
        await ensure_topics(broker, Config(), GROUPS)  # type: ignore[arg-type]
