"""Scatter-gather on FastStream: in batches, and as its documentation shows it.

    python faststream_peer.py BOOTSTRAP PREFIX gather|layers DELAYS_MS [--batch]

acks=all, idempotent; offsets are committed by FastStream after the handler has returned. Only where
single messages wait for layers, they are acknowledged first: nothing else lets the messages of one
partition overlap.
"""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from typing import Any, NamedTuple

import uvloop
from faststream import AckPolicy, FastStream
from faststream.kafka import KafkaBroker, KafkaMessage
from scatter_gather import (
    LAYERS,
    Arguments,
    Partial,
    Task,
    arguments,
    by_layer,
    decode_partial,
    decode_query,
    decode_task,
    encode,
    found,
    joined,
    tasks,
)

OVERLAPPING = 100
COMMON: dict[str, Any] = {
    "auto_offset_reset": "earliest",
    "ack_policy": AckPolicy.ACK,
    "session_timeout_ms": 6_000,
    "heartbeat_interval_ms": 400,
}
BATCHES: dict[str, Any] = {"batch": True, "batch_timeout_ms": 20, "max_records": 1_000}


class Topics(NamedTuple):
    """Names by what they carry."""

    queries: str
    tasks: str
    partials: str
    results: str


class Joins:
    """Partials that wait for others of their query."""

    def __init__(self) -> None:
        self._parts: dict[str, dict[str, Partial]] = defaultdict(dict)

    def add(self, partial: Partial) -> bytes | None:
        """The answer, if this was the last that it needs."""
        parts = self._parts[partial.id]
        parts[partial.layer] = partial
        if len(parts) < len(LAYERS):
            return None
        del self._parts[partial.id]
        return encode(joined(parts.values()))


def gather_singly(broker: KafkaBroker, topics: Topics, common: dict[str, Any]) -> None:
    """One message, one handler call, one publish at a time."""
    joins = Joins()

    @broker.subscriber(topics.queries, **common)
    async def ask(message: KafkaMessage) -> None:
        record = message.raw_message
        for task in tasks(decode_query(record.value)):
            await broker.publish(
                encode(task), topics.tasks, key=record.key, partition=record.partition
            )

    @broker.subscriber(topics.partials, **common)
    async def join(message: KafkaMessage) -> None:
        record = message.raw_message
        if (answer := joins.add(decode_partial(record.value))) is not None:
            await broker.publish(answer, topics.results, key=record.key, partition=record.partition)


def layers_singly(
    broker: KafkaBroker, topics: Topics, common: dict[str, Any], delays_s: dict[str, float]
) -> None:
    """One message, one handler call, one publish; overlapping where they wait."""
    if delays_s:
        common = common | {"ack_policy": AckPolicy.ACK_FIRST, "max_workers": OVERLAPPING}

    @broker.subscriber(topics.tasks, **common)
    async def answer(message: KafkaMessage) -> None:
        record = message.raw_message
        task = decode_task(record.value)
        if delays_s:
            await asyncio.sleep(delays_s[task.layer])
        await broker.publish(
            encode(found(task)), topics.partials, key=record.key, partition=record.partition
        )


async def publish(broker: KafkaBroker, topic: str, out: list[tuple[Any, bytes]]) -> None:
    """Values together, each where the record that it comes of stands."""
    await asyncio.gather(
        *(
            broker.publish(value, topic, key=record.key, partition=record.partition)
            for record, value in out
        )
    )


def gather_batches(broker: KafkaBroker, topics: Topics, common: dict[str, Any]) -> None:
    """A batch of messages, one handler call, its publishes together."""
    joins = Joins()

    @broker.subscriber(topics.queries, **common)
    async def ask(message: KafkaMessage) -> None:
        out = [
            (record, encode(task))
            for record in message.raw_message
            for task in tasks(decode_query(record.value))
        ]
        await publish(broker, topics.tasks, out)

    @broker.subscriber(topics.partials, **common)
    async def join(message: KafkaMessage) -> None:
        out = [
            (record, answer)
            for record in message.raw_message
            if (answer := joins.add(decode_partial(record.value))) is not None
        ]
        await publish(broker, topics.results, out)


def layers_batches(
    broker: KafkaBroker, topics: Topics, common: dict[str, Any], delays_s: dict[str, float]
) -> None:
    """A batch of messages, one handler call, the publishes of each layer together."""

    async def respond(layer: str, group: list[tuple[Any, Task]]) -> None:
        if delays_s:
            await asyncio.sleep(delays_s[layer])  # of all at once: they came together
        await publish(broker, topics.partials, [(r, encode(found(task))) for r, task in group])

    @broker.subscriber(topics.tasks, **common)
    async def answer(message: KafkaMessage) -> None:
        given = ((record, decode_task(record.value)) for record in message.raw_message)
        await asyncio.gather(*(respond(layer, group) for layer, group in by_layer(given)))


def application(given: Arguments, *, in_batches: bool) -> FastStream:
    """Either process of the peer."""
    broker = KafkaBroker(
        given.bootstrap, acks="all", enable_idempotence=True, max_batch_size=262_144, logger=None
    )
    topics = Topics(*(f"{given.prefix}.{letter}" for letter in "qtpr"))
    common = COMMON | {"group_id": f"{given.prefix}-{given.role}"}
    if in_batches:
        common |= BATCHES
    if given.role == "gather":
        (gather_batches if in_batches else gather_singly)(broker, topics, common)
    else:
        (layers_batches if in_batches else layers_singly)(broker, topics, common, given.delays_s)
    app = FastStream(broker, logger=None)

    @app.after_startup
    async def ready() -> None:
        while not all(subscriber.consumer.assignment() for subscriber in broker.subscribers):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        print("ready", flush=True)

    return app


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--batch"]
    app = application(arguments(words), in_batches="--batch" in sys.argv)
    uvloop.run(app.run())
