"""A layer of one's own, and everything else in the same process: `python examples/embedded.py`.

Takes the address of a Kafka, or starts the embedded broker.
"""

import asyncio
import sys

from anabranch import (
    Client,
    Config,
    Coordinator,
    Item,
    KafkaConfig,
    LayerSpec,
    Request,
    Worker,
    layer,
)
from anabranch.dev.embedded import EmbeddedBroker

ORDERS = {"c-1": [("order:17", "two lamps"), ("order:20", "a chair")]}


@layer("orders")
async def orders(request: Request) -> list[Item]:
    found = ORDERS.get(request.params["customer"], [])
    return [Item(id, 1 / rank, {"what": what}) for rank, (id, what) in enumerate(found, 1)]


async def main(bootstrap: str) -> None:
    config = Config(kafka=KafkaConfig(bootstrap=bootstrap, fetch_max_wait_ms=10))
    async with (
        Coordinator(config),
        Worker(config, layers=[LayerSpec(orders)]) as worker,
        Client(config) as client,
    ):
        await worker.ready()
        for _ in range(2):
            answer = await client.ask("orders", {"customer": "c-1"}, layers=["orders"])
            print(answer.status, answer.strategy, [item.id for item in answer.items])
            print("  ", answer.reason)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(main(sys.argv[1]))
    else:
        with EmbeddedBroker() as broker:
            asyncio.run(main(broker.bootstrap))
