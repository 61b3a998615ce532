"""A rebalance in the middle of a fetch: the rest is read again, by whoever has it then."""

from __future__ import annotations

from typing import Any

from records import FakeRecord

from anabranch.kafka.topics import Topics
from anabranch.kafka.transport import Committed, TopicPartition
from anabranch.testing.virtual_time import run
from anabranch.worker.subscription import Subscription

TOPICS = Topics("t.")
AT = TopicPartition(TOPICS.tasks("io", "medium"), 0)


class Consumer:
    """Brings one batch, and notes what is committed."""

    def __init__(self) -> None:
        self.commits: list[dict[TopicPartition, Committed]] = []

    def consumer(self, *_: Any) -> Consumer:
        return self

    def pause(self, partitions: Any) -> None: ...

    async def fetch(self, timeout_ms: int) -> dict[TopicPartition, list[FakeRecord]]:
        return {AT: [FakeRecord(b"", offset=n, topic=AT.topic) for n in range(600)]}

    async def commit(self, offsets: dict[TopicPartition, Committed]) -> None:
        self.commits.append(dict(offsets))


async def announced() -> None: ...


def test_tasks_of_a_fetch_before_a_rebalance_are_neither_run_nor_committed_after_it() -> None:
    async def body() -> None:
        consumer: Any = Consumer()
        subscription = Subscription(consumer, TOPICS, "t.", "io", "w", announced)
        await subscription.assigned([AT])
        taken = []
        async for _, record in subscription.fetch(100):
            taken.append(record.offset)
            if record.offset == 300:
                await subscription.revoked([AT])
                await subscription.assigned([AT])
        assert taken == list(range(301))
        await subscription.commit()
        # What was handed out before is committed; 300 was not queued yet, and is read again.
        assert consumer.commits == [{AT: Committed(300, "")}]

    run(body())
