"""What the rest of Anabranch needs of a broker, as small protocols.

Implemented by `kafka.client` (aiokafka) and by `testing.memory` (in process, virtual time);
one contract suite runs on both. All calls belong to one event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol, TypeAlias

from anabranch.errors import RecordRefused

__all__ = [
    "CREATE_TIME",
    "LOG_APPEND_TIME",
    "Acked",
    "Admin",
    "Committed",
    "GroupConsumer",
    "Headers",
    "IsolationLevel",
    "Outcome",
    "Producer",
    "ProducerRecord",
    "Reader",
    "RebalanceListener",
    "Record",
    "TopicPartition",
    "TopicState",
    "TransactionalProducer",
    "Transport",
]

CREATE_TIME = 0
LOG_APPEND_TIME = 1

Headers = Sequence[tuple[str, bytes]]
IsolationLevel = Literal["read_committed", "read_uncommitted"]


class TopicPartition(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int


class Record(NamedTuple):
    """A record as read. `timestamp` is epoch milliseconds; `timestamp_type` says whose.

    What cannot be unpacked is a record too: `error` says why, and of which offsets it is all that
    can be had, `value` is the raw bytes, no event of ours, and `offset` the last that it stands
    for. Whoever decodes it fails, as with any other rubbish; `dead_letter` tells the true reason.

    `leader_epoch` counts the partition's leaders, up to the one that appended it; -1 if it is not
    known. What was read is lost only where leaders change.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    error: str | None = None
    leader_epoch: int = -1


class Acked(NamedTuple):
    """Where the broker has appended a record."""

    partition: int
    offset: int


class ProducerRecord(NamedTuple):
    """A record to be sent; it needs a key or a value."""

    value: bytes | None
    key: bytes | None = None
    headers: Headers = ()


Outcome: TypeAlias = int | RecordRefused
"""What became of a record: its offset, or why the broker does not take it."""


class Committed(NamedTuple):
    """A committed offset (the next to read) and the metadata beside it."""

    offset: int
    metadata: str


class TopicState(NamedTuple):
    """A topic as the broker has it; `settings` holds the values that were asked for."""

    partitions: int
    settings: dict[str, str]


class Producer(Protocol):
    """Idempotent, acks=all."""

    async def start(self) -> None: ...

    async def stop(self) -> None:
        """Deliver what was sent, then close; bounded.

        Raises:
            ProduceError: not all could be delivered.
        """
        ...

    async def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int | None = None,
        headers: Headers = (),
    ) -> asyncio.Future[Acked]:
        """Hand a record over. Waits only for room; the future is its acknowledgement.

        The future fails with `RecordRefused` if the broker does not take this record (whatever
        becomes of those that share its batch), with `TopicError`, `ProducerFenced` or another
        `ProduceError` if it is not acknowledged.

        Raises:
            TopicError: the topic or partition does not exist.
            ProduceError: it cannot be sent.
        """
        ...

    async def send_batch(
        self, topic: str, partition: int, records: Sequence[ProducerRecord]
    ) -> asyncio.Future[Sequence[Outcome]]:
        """Hand over what goes to one partition, in its order, with one future for all of it.

        The cheapest way to send: they leave in as few batches as their sizes allow. Waits only for
        room. The future's result says of each record in turn what became of it (a plain `range` of
        offsets where all went in one batch); it fails with `TopicError`, `ProducerFenced` or
        another `ProduceError` if that is not known. What a refused record shared its batch with is
        sent again without it, which may be behind what was sent later.

        Raises:
            TopicError: the topic or partition does not exist.
            ProduceError: they cannot be sent.
        """
        ...

    async def send_and_wait(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int | None = None,
        headers: Headers = (),
    ) -> Acked:
        """`send`, and wait for the acknowledgement.

        Raises:
            TopicError: the topic or partition does not exist.
            RecordRefused: the broker does not take it.
            ProduceError: it was not acknowledged in time.
        """
        ...

    async def partitions(self, topic: str) -> int:
        """How many partitions a topic of ours has; 0 if there is no such topic."""
        ...

    async def lookup(self, topic: str) -> int:
        """As `partitions`, for names that somebody else chose: makes no topic, leaves no trace.

        Raises:
            BrokerUnavailable: nobody answers.
        """
        ...


class TransactionalProducer(Producer, Protocol):
    """The producer of one transactional id: what it sends counts, all of it, once it commits.

    `start` fences whoever used the id before, and aborts what they left open; so nothing has to
    be aborted here: after any failure the id is started anew, by whoever goes on.
    """

    async def begin(self) -> None:
        """Begin a transaction; everything sent from here on belongs to it."""
        ...

    async def commit(self, offsets: Mapping[TopicPartition, Committed], group: str) -> None:
        """Commit what was sent, and offsets of a group with it. Every send was acknowledged.

        Answered before it can be read: markers are written a moment later.

        Raises:
            ProducerFenced: somebody else uses the id now, or it took longer than the timeout.
            BrokerUnavailable: no answer; whether it is committed shows when the id is started.
            BrokerError: refused.
        """
        ...


class RebalanceListener(Protocol):
    """Told of assignment changes of a group consumer; an error here ends the instance."""

    async def revoked(self, partitions: Collection[TopicPartition]) -> None:
        """Called with the whole old assignment, while the old generation may still commit."""
        ...

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        """Called with the whole new assignment. Nothing slow: no heartbeats until it returns."""
        ...


class GroupConsumer(Protocol):
    """A member of a consumer group, with manual commits.

    One that the group dropped does not come back as somebody else: `fetch` raises
    `GenerationLost`, and its process ends.
    """

    async def start(self) -> None: ...

    async def stop(self) -> None:
        """Leave the group without committing; bounded, whether the broker answers or not."""
        ...

    async def fetch(self, timeout_ms: int) -> Mapping[TopicPartition, Sequence[Record]]:
        """What was fetched so far, or what comes within `timeout_ms`; a bounded number of records.

        What was fetched before a rebalance is not handed out after it; a call that is cancelled
        loses nothing.

        Raises:
            BrokerError: the member cannot go on.
            Exception: what the listener raised.
        """
        ...

    def pause(self, partitions: Collection[TopicPartition]) -> None: ...
    def resume(self, partitions: Collection[TopicPartition]) -> None: ...
    def seek(self, partition: TopicPartition, offset: int) -> None: ...

    async def commit(self, offsets: Mapping[TopicPartition, Committed]) -> None:
        """Commit with the current generation.

        Raises:
            GenerationLost: this member is not in the group any more.
            BrokerUnavailable: no answer, or a rebalance is under way; it may be tried again.
            BrokerError: any other refusal.
        """
        ...

    async def prove(self) -> None:
        """Prove by a heartbeat with the current generation that the group counts us in.

        Raises:
            GenerationLost: it does not.
            BrokerUnavailable: no answer; it may be tried again.
        """
        ...

    async def committed(
        self, partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, Committed]:
        """What the group has committed, read from the broker; absent where there is nothing."""
        ...


class Reader(Protocol):
    """Group-less: reads what it is assigned, from where it is told."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        """Read exactly these partitions, each from its offset; what was fetched before is void."""
        ...

    async def fetch(self, timeout_ms: int) -> Mapping[TopicPartition, Sequence[Record]]: ...

    def position(self, partition: TopicPartition) -> int:
        """The next offset that `fetch` will hand out (past transaction markers)."""
        ...

    async def beginnings(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """First offset that still exists, by partition."""
        ...

    async def ends(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Offset after the last readable record (the last stable offset if read_committed)."""
        ...

    async def partitions(self, topic: str) -> int:
        """How many partitions a topic has; 0 if there is no such topic."""
        ...


class Admin(Protocol):
    """Topic administration."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...

    async def topics(self, names: Collection[str]) -> dict[str, TopicState]:
        """Those of the named topics that exist."""
        ...

    async def create(self, topics: Mapping[str, TopicState], replication: int) -> None:
        """Create topics; those that exist are left alone.

        Raises:
            TopicError: the broker refused; names the topic and the reason.
            TopicsOnFirstUse: it does not create topics, but makes them when they are used.
        """
        ...


class Transport(Protocol):
    """Makes clients of one broker. Nothing is connected before their `start`."""

    def producer(self, name: str) -> Producer: ...

    def transactional(self, name: str, transactional_id: str) -> TransactionalProducer:
        """Its transactions time out with the session of a group member."""
        ...

    def consumer(
        self, name: str, group: str, topics: Sequence[str], listener: RebalanceListener
    ) -> GroupConsumer:
        """A group member called `name` (assignment is a function of names)."""
        ...

    def reader(self, name: str, isolation: IsolationLevel = "read_committed") -> Reader: ...

    def admin(self) -> Admin: ...
