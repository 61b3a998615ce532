"""The seam in aiokafka's fetcher at which one record comes to cost one record.

aiokafka parses what it fetched while it is handed out, and whatever it trips over ends the
consumer, takes along what other partitions had, and meets it again at the next start. Instead of
its own parser each fetch of a partition gets `Batches`, over the same bytes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaTopicPartition
from aiokafka.consumer.fetcher import FetchResult, PartitionRecords
from aiokafka.protocol.fetch import FetchRequest

from anabranch.kafka.client.batches import Batch, Batches
from anabranch.kafka.transport import Record, TopicPartition

__all__ = ["contain"]


def contain(client: AIOKafkaConsumer) -> None:
    """Let a consumer that was started, and not asked for records yet, read whatever comes."""
    data: dict[KafkaTopicPartition, bytes] = {}
    connection = client._client
    send = connection.send

    async def tap(node_id: int, request: Any, **more: Any) -> Any:
        response = await send(node_id, request, **more)
        if isinstance(request, FetchRequest):
            data.clear()  # the fetcher has looked at all of the last one by now
            for topic, partitions in response.topics:
                for partition, *_, records in partitions:
                    data[KafkaTopicPartition(topic, partition)] = records or b""
        return response

    connection.send = tap
    # What came before is fetched again: positions move when records are handed out.
    client._fetcher._records = _Fetched(data)


class _Fetched(OrderedDict[KafkaTopicPartition, Any]):
    """The fetcher's own store of what was not handed out yet."""

    def __init__(self, data: dict[KafkaTopicPartition, bytes]) -> None:
        super().__init__()
        self._data = data
        self._distrusted: dict[KafkaTopicPartition, set[int]] = {}

    def __setitem__(self, at: KafkaTopicPartition, result: Any) -> None:
        if type(result) is FetchResult:
            if at not in self._data:
                return  # it was on its way before we listened: it is fetched again
            batches = Batches(
                TopicPartition(*at),
                self._data.pop(at),
                result._assignment.state_value(at).highwater,
                self._distrusted.setdefault(at, set()),
            )
            result._partition_records = _Records(result._partition_records, batches)
        super().__setitem__(at, result)


class _Records(PartitionRecords):
    """aiokafka's handling of transactions and positions, over other batches than its own."""

    def __init__(self, theirs: PartitionRecords, batches: Batches) -> None:
        super().__init__(
            theirs._tp,
            batches,
            theirs._aborted_transactions,
            theirs.next_fetch_offset,
            None,
            None,
            theirs._check_crcs,
            theirs._isolation_level,
        )

    def __iter__(self) -> Iterator[Record]:
        """What hands out records, without a call for each."""
        return self._records_iterator or iter(())

    def _contains_abort_marker(self, batch: Batch) -> bool:
        try:
            return bool(super()._contains_abort_marker(batch))
        except Exception:  # only brokers write control batches; one that nobody can read says no
            return False

    def _consumer_record(self, tp: KafkaTopicPartition, record: Record) -> Record:
        return record
