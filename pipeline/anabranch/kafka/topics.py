"""Which topics Anabranch needs, and how those of a broker differ from them.

The list and the comparison are pure; `ensure_topics` alone speaks to a broker.
"""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Final

from anabranch.config.settings import LAYER_TTL_MS, Config
from anabranch.contract.codec import MAX_VALUE_BYTES
from anabranch.contract.events import PRIORITIES, Priority
from anabranch.errors import TopicError, TopicsOnFirstUse
from anabranch.kafka.transport import Admin, Producer, Reader, TopicState, Transport

__all__ = [
    "Topics",
    "conflicts",
    "differences",
    "ensure_topics",
    "find_topics",
    "is_topic_name",
    "kafka_topics_commands",
    "require_topics",
    "topic_specs",
]

_TOPIC_NAME: Final = re.compile("[a-zA-Z0-9._-]{1,249}")
MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
"""Well above `MAX_VALUE_BYTES`: what is too large should get here and be answered, not vanish."""
DLQ_MESSAGE_BYTES: Final = MAX_MESSAGE_BYTES + MAX_VALUE_BYTES
"""A dead letter is the whole message and what was wrong with it."""
HEALTH_SEGMENT_MS: Final = 300_000
"""Only closed segments are compacted, and whoever starts reads what is not."""
VISIBLE_TIMEOUT_S: Final = 10.0
VISIBLE_POLL_S: Final = 0.1
_PRIORITY_ENDS: Final = tuple(f".{priority}" for priority in PRIORITIES)


class Topics:
    """The topics' names under a namespace (`anabranch.` by default, its dot included)."""

    def __init__(self, namespace: str) -> None:
        self.queries = f"{namespace}queries"
        self.partials = f"{namespace}partials"
        self.results = f"{namespace}results"
        self.health = f"{namespace}health"
        self.control = f"{namespace}control"
        self.telemetry = f"{namespace}telemetry"
        self.dlq = f"{namespace}dlq"
        self._tasks = f"{namespace}tasks"

    def tasks(self, group: str, priority: Priority) -> str:
        """Where tasks of that priority for a worker group go."""
        return f"{self._tasks}.{group}.{priority}"

    def tasks_of(self, group: str) -> tuple[str, ...]:
        """The four task topics of a worker group, highest priority first."""
        return tuple(self.tasks(group, priority) for priority in PRIORITIES)

    @property
    def all_but_tasks(self) -> tuple[str, ...]:
        """What a coordinator needs from its start."""
        joined = (self.queries, self.partials, self.results)
        return (*joined, self.health, self.control, self.telemetry, self.dlq)

    def is_work(self, topic: str) -> bool:
        """Whether a topic holds what is worked off, and not answers, orders or what is known."""
        is_task = topic.startswith(f"{self._tasks}.") and topic.endswith(_PRIORITY_ENDS)
        return is_task or topic in (self.queries, self.partials)

    def equal(self, groups: Collection[str]) -> list[tuple[str, ...]]:
        """Topics that must have as many partitions as each other: partition p means the same."""
        return [(self.queries, self.partials, self.results), *map(self.tasks_of, groups)]


def is_topic_name(name: str) -> bool:
    """Whether Kafka could have a topic of that name."""
    return name not in (".", "..") and _TOPIC_NAME.fullmatch(name) is not None


def topic_specs(config: Config, groups: Collection[str]) -> dict[str, TopicState]:
    """Every topic that a configuration needs, with its partitions and settings."""
    topics, wanted = Topics(config.namespace), config.topics
    common = {
        "message.timestamp.type": "LogAppendTime",
        "max.message.bytes": str(MAX_MESSAGE_BYTES),
    }
    if config.kafka.replication >= 3:
        common["min.insync.replicas"] = "2"
    kept = common | {"cleanup.policy": "delete", "retention.ms": str(wanted.retention_ms)}
    health = common | {"cleanup.policy": "compact", "segment.ms": str(HEALTH_SEGMENT_MS)}
    control = kept | {
        "cleanup.policy": "compact,delete",
        "retention.ms": str(max(wanted.retention_ms, 2 * longest_ttl_ms(config))),
    }
    dead = kept | {
        "max.message.bytes": str(DLQ_MESSAGE_BYTES),
        "retention.ms": str(wanted.dlq_retention_ms),
    }
    tasks = [name for group in groups for name in topics.tasks_of(group)]
    joined = (topics.queries, topics.partials, topics.results)
    return {
        **{name: TopicState(wanted.queries, kept) for name in joined},
        **{name: TopicState(wanted.tasks, kept) for name in tasks},
        topics.health: TopicState(1, health),
        topics.control: TopicState(1, control),
        topics.telemetry: TopicState(1, kept),
        topics.dlq: TopicState(1, dead),
    }


def longest_ttl_ms(config: Config) -> int:
    """How long a cached result may live: an invalidation must be readable for longer."""
    configured = (layer.ttl_ms for layer in config.layers.values() if layer.ttl_ms is not None)
    return max([*LAYER_TTL_MS.values(), *configured])


def differences(wanted: Mapping[str, TopicState], found: Mapping[str, TopicState]) -> list[str]:
    """What differs from what is wanted, one sentence each, with what to do about it.

    Settings that the broker did not report are not compared.
    """
    sentences: list[str] = []
    for name, state in wanted.items():
        present = found.get(name)
        if present is None:
            sentences.append(
                f"{name} is missing; create it with `anabranch topics`, or with what "
                f"`anabranch topics --print` prints"
            )
            continue
        sentences += _partition_difference(name, state.partitions, present.partitions)
        sentences += [
            f"{name} has {key} = {present.settings[key]} where {value} is wanted; change it with "
            f"kafka-configs.sh --alter --entity-type topics --entity-name {name} "
            f"--add-config {key}=[{value}]"
            for key, value in state.settings.items()
            if not _same(present.settings.get(key, value), value)
        ]
    return sentences


def _same(found: str, wanted: str) -> bool:
    return sorted(found.split(",")) == sorted(wanted.split(","))


def _partition_difference(name: str, wanted: int, found: int) -> list[str]:
    if found == wanted:
        return []
    start = f"{name} has {found} partitions where {wanted} are wanted; "
    if found > wanted:
        return [f"{start}write {found} in [topics], or delete the topic and create it again"]
    return [
        f"{start}add them with kafka-topics.sh --alter --topic {name} --partitions {wanted}, "
        f"or write {found} in [topics]"
    ]


def conflicts(
    topics: Topics, groups: Collection[str], found: Mapping[str, TopicState]
) -> list[str]:
    """What Anabranch cannot run with: topics that are missing or unequal where they must match."""
    sentences: list[str] = []
    for names in [*topics.equal(groups), (topics.health,), (topics.control,), (topics.dlq,)]:
        sentences += [f"{name} is missing" for name in names if name not in found]
        counts = {name: found[name].partitions for name in names if name in found}
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{name} has {count}" for name, count in counts.items())
            sentences.append(
                f"{listed} partitions; they must have as many as each other: add partitions to "
                f"those that have fewer"
            )
    return sentences


def kafka_topics_commands(
    specs: Mapping[str, TopicState], bootstrap: str, replication: int = -1
) -> list[str]:
    """The `kafka-topics.sh` commands that create these topics, for whoever may do so."""
    factor = ["--replication-factor", str(replication)] if replication > 0 else []
    return [
        shlex.join(
            [
                "kafka-topics.sh",
                *("--bootstrap-server", bootstrap, "--create", "--if-not-exists"),
                *("--topic", name, "--partitions", str(state.partitions), *factor),
                *(word for k, v in state.settings.items() for word in ("--config", f"{k}={v}")),
            ]
        )
        for name, state in specs.items()
    ]


async def find_topics(transport: Transport, names: Collection[str]) -> dict[str, TopicState]:
    """Those of the named topics that exist, as the broker has them.

    Raises:
        BrokerUnavailable: nobody answers at the bootstrap address.
    """
    async with _admin(transport) as admin:
        return await admin.topics(names)


async def require_topics(client: Producer | Reader, names: Iterable[str]) -> None:
    """Called before anything waits for a topic: one that is missing would be waited for in vain.

    Where topics appear on first use (the embedded broker), they do.

    Raises:
        TopicError: one or several are not there; names them, and what to do.
    """
    missing = [name for name in names if not await client.partitions(name)]
    if missing:
        raise TopicError(
            f"there is no topic {', '.join(missing)}; create it with `anabranch topics`"
        )


async def ensure_topics(
    transport: Transport, config: Config, groups: Collection[str]
) -> dict[str, TopicState]:
    """Create what is missing, and return all as the broker has them.

    A broker that cannot create topics but makes them on first use (the embedded one) is used
    as it is: each missing topic is asked for once.

    Raises:
        TopicError: a topic is missing and cannot be created, or partitions do not match.
        BrokerUnavailable: nobody answers at the bootstrap address.
    """
    specs = topic_specs(config, groups)
    async with _admin(transport) as admin:
        found = await admin.topics(specs)
        missing = {name: state for name, state in specs.items() if name not in found}
        if missing:
            await _create(transport, admin, missing, config.kafka.replication)
            found = await _visible(admin, specs)
    in_the_way = conflicts(Topics(config.namespace), groups, found)
    if in_the_way:
        raise TopicError("; ".join(in_the_way))
    return found


@asynccontextmanager
async def _admin(transport: Transport) -> AsyncIterator[Admin]:
    admin = transport.admin()
    await admin.start()
    try:
        yield admin
    finally:
        await admin.stop()


async def _create(
    transport: Transport, admin: Admin, missing: Mapping[str, TopicState], replication: int
) -> None:
    try:
        await admin.create(missing, replication)
    except TopicsOnFirstUse:
        producer = transport.producer("topics")
        await producer.start()
        try:
            touched = [await producer.partitions(name) for name in missing]
        finally:
            await producer.stop()
        if not all(touched):
            raise


async def _visible(admin: Admin, names: Collection[str]) -> dict[str, TopicState]:
    """The topics as the broker has them, once all that were created can be seen."""
    loop = asyncio.get_running_loop()
    give_up = loop.time() + VISIBLE_TIMEOUT_S
    while True:
        found = await admin.topics(names)
        if len(found) == len(names) or loop.time() > give_up:
            return found
        await asyncio.sleep(VISIBLE_POLL_S)
