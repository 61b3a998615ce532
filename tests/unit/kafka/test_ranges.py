"""Reading so much of a log and no more, whatever happens to it meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from anabranch.kafka.ranges import read_ranges
from anabranch.kafka.transport import LOG_APPEND_TIME, TopicPartition
from anabranch.testing.memory import MemoryBroker
from anabranch.testing.memory.log import Log
from anabranch.testing.virtual_time import run

TP = TopicPartition("t", 0)


def offsets(meanwhile: Callable[[Log], None], offsets: range = range(3, 8)) -> list[int]:
    """What is read of these offsets of a log that held ten when its end was asked for."""
    broker = MemoryBroker(default_partitions=1)
    log = broker.log(TP)
    for _ in range(10):
        log.append(None, b"", (), 0, LOG_APPEND_TIME)
    meanwhile(log)

    async def read() -> list[int]:
        reader = broker.transport("c").reader("c")
        async with asyncio.timeout(60):
            return [record.offset async for record in read_ranges(reader, {TP: offsets})]

    return run(read())


@pytest.mark.parametrize(
    ("meanwhile", "expected"),
    [
        (lambda log: None, [3, 4, 5, 6, 7]),
        (lambda log: log.truncate(5), [3, 4]),
        (lambda log: log.truncate(0), []),
        (lambda log: log.delete_before(6), [6, 7]),
        (lambda log: log.delete_before(10), []),
    ],
    ids=["whole", "lost its tail", "made anew", "lost its head", "emptied"],
)
def test_what_is_left_is_read_and_it_ends(
    meanwhile: Callable[[Log], None], expected: list[int]
) -> None:
    assert offsets(meanwhile) == expected


def test_an_empty_range_reads_nothing() -> None:
    assert offsets(lambda log: None, range(5, 5)) == []


def test_markers_at_the_end_are_no_records_to_wait_for() -> None:
    def mark(log: Log) -> None:
        log.truncate(6)
        log.append_marker()
        log.append_marker()

    assert offsets(mark) == [3, 4, 5]
