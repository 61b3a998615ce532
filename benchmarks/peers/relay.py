"""A bare relay: the same bytes on the next topic, record by record.

What Kafka and the client library cost by themselves, on the same terms as a coordinator.

    python relay.py BOOTSTRAP FROM:TO [FROM:TO ...]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import uvloop
from aiokafka import TopicPartition
from pipe import Pipe


async def relay(bootstrap: str, ways: dict[str, str]) -> None:
    """Move records between topics, partition by partition."""
    pipe = Pipe(bootstrap, "relay-" + "-".join(ways), ways)

    async def handle(tp: TopicPartition, records: Sequence[Any]) -> None:
        to, waiting = ways[tp.topic], pipe.open[tp]
        for record in records:
            ack = await pipe.producer.send(to, record.value, key=record.key, partition=tp.partition)
            ack.add_done_callback(lambda _, offset=record.offset: waiting.pop(offset))

    await pipe.run(handle)


if __name__ == "__main__":
    uvloop.run(relay(sys.argv[1], dict(way.split(":") for way in sys.argv[2:])))
