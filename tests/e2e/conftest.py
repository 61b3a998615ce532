"""A pipeline on a real socket: the embedded broker always, Apache Kafka where there is one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import Any

import msgspec
import pytest
from pipelines import Pipeline, layers_of

from anabranch.client import Client
from anabranch.config.settings import (
    Config,
    CoordinatorConfig,
    KafkaConfig,
    TopicsConfig,
    TypeConfig,
)
from anabranch.coordinator import Coordinator
from anabranch.kafka.client import KafkaTransport
from anabranch.kafka.topics import ensure_topics
from anabranch.worker import Worker

_namespaces = count()


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def config(request: pytest.FixtureRequest) -> Config:
    """A configuration with a namespace of its own, on each kind of broker."""
    bootstrap = request.getfixturevalue(request.param)
    wait_ms = 10 if request.param == "embedded" else 50
    return Config(
        namespace=f"t{next(_namespaces)}.",
        kafka=KafkaConfig(bootstrap=bootstrap, fetch_max_wait_ms=wait_ms),
        topics=TopicsConfig(queries=3, tasks=4),
        coordinator=CoordinatorConfig(reply_topics=["replies*"]),
        types={"t": TypeConfig(layers=["a", "b"])},
    )


Start = Callable[..., Any]


@pytest.fixture
def start(config: Config) -> Start:
    """`async with start(functions) as pipeline`: coordinator, workers and a client, ready."""

    @asynccontextmanager
    async def run(
        functions: dict[str, Any], groups: dict[str, Sequence[str]] | None = None, **changes: Any
    ) -> AsyncIterator[Pipeline]:
        changed = msgspec.structs.replace(config, **changes)
        by_group = groups or {"default": list(functions)}
        await ensure_topics(KafkaTransport(changed.kafka), changed, list(by_group))
        async with AsyncExitStack() as stack:
            coordinator = await stack.enter_async_context(Coordinator(changed))
            for group, names in by_group.items():
                specs = layers_of({name: functions[name] for name in names}, group)
                worker = await stack.enter_async_context(Worker(changed, group, specs))
                await worker.ready()
            await coordinator.ready()
            client = await stack.enter_async_context(Client(changed))
            pipeline = Pipeline(changed, coordinator, client)
            await pipeline.know(list(functions))
            yield pipeline

    return run
