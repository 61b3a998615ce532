"""Broker, topics, workers and coordinator in one process, as `up` and `demo` run them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from msgspec import structs

from anabranch.cli.common import collect_rarely
from anabranch.config.settings import Config
from anabranch.coordinator import Coordinator
from anabranch.dev.embedded import EmbeddedBroker
from anabranch.errors import ConfigError
from anabranch.kafka.default import default_transport
from anabranch.kafka.topics import ensure_topics
from anabranch.worker import Worker

__all__ = ["embedded", "pipeline"]

EMBEDDED_FETCH_MS: Final = 5
"""A long poll of the embedded broker is not woken by data: short ones instead."""

Say = Callable[[str], None]
"""Told what is being started."""


def embedded(config: Config, broker: EmbeddedBroker) -> Config:
    """The same configuration, on an embedded broker.

    Raises:
        ConfigError: it is to promise what only Apache Kafka can keep.
    """
    if config.mode == "exactly_once":
        raise ConfigError(
            'mode = "exactly_once": the embedded broker has no transactions with offsets; '
            "set kafka.bootstrap to an Apache Kafka (`anabranch broker --kafka` runs one) or "
            'mode = "at_least_once"'
        )
    kafka = structs.replace(
        config.kafka, bootstrap=broker.bootstrap, fetch_max_wait_ms=EMBEDDED_FETCH_MS, client={}
    )
    return structs.replace(config, kafka=kafka)


@asynccontextmanager
async def pipeline(config: Config, say: Say = lambda step: None) -> AsyncIterator[None]:
    """A worker for each group and a coordinator, ready to answer; the coordinator drains first.

    Raises:
        ConfigError: no layers are configured, or a layer's settings are wrong.
        BrokerError: the broker or its topics cannot be used.
        StageFailed: from the body, when something in the background died.
    """
    if not config.layers:
        raise ConfigError(
            f"{config.source}: no layers are configured; write, for example, [layers.semantic] "
            f'with plugin = "git", kind = "semantic" and repo = "."'
        )
    say("topics")
    await ensure_topics(default_transport(config.kafka), config, config.groups)
    async with AsyncExitStack() as stack:
        for group in config.groups:
            say(f"worker of group {group}")
            worker = Worker(_named(config, f"worker-{group}"), group)
            await stack.enter_async_context(worker)
        say("coordinator")
        coordinator = await stack.enter_async_context(Coordinator(_named(config, "coordinator")))
        await coordinator.ready()
        collect_rarely()
        yield


def _named(config: Config, role: str) -> Config:
    """Of a configured instance name, one for each role: two must not share it."""
    return structs.replace(config, instance=config.instance and f"{config.instance}-{role}")
