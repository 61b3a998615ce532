"""One record costs one record, below the client library too: whatever bytes a log holds."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka import TopicPartition as KafkaTopicPartition
from aiokafka.consumer.fetcher import PartitionRecords
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_batches import CODECS, batch, record, resealed, varint

from anabranch.kafka.client import inflating
from anabranch.kafka.client.batches import Batches
from anabranch.kafka.client.unpacking import _Records
from anabranch.kafka.dead_letters import dead_letter
from anabranch.kafka.transport import Record, TopicPartition

AT = TopicPartition("t", 3)
BAD_NAME = (b"\xff\xfe", b"1")


class Partition:
    """A partition that is read as aiokafka does it: from a position, over and over."""

    def __init__(self, *batches: bytes, end: int | None = None) -> None:
        self.batches = list(batches)
        self._end = end if end is not None else 1 << 40
        self._distrusted: set[int] = set()
        self.position = 0

    def fetch(self) -> list[Record]:
        theirs = PartitionRecords(
            KafkaTopicPartition(*AT), None, None, self.position, None, None, True, 1
        )
        firsts = [int.from_bytes(raw[:8], "big") for raw in self.batches[1:]]
        while firsts and firsts[0] <= self.position:
            del self.batches[0], firsts[0]
        batches = Batches(AT, b"".join(self.batches), self._end, self._distrusted)
        records = _Records(theirs, batches)
        found = list(records)
        self.position = records.next_fetch_offset
        return found


def outcome(records: list[Record]) -> list[tuple[int, bool]]:
    return [(r.offset, r.error is None) for r in records]


@pytest.mark.parametrize("codec", CODECS)
def test_every_codec_is_read(codec: str) -> None:
    raw = batch([record(n, b"%d" % n * 100) for n in range(50)], 7, codec=codec)
    found = Partition(raw).fetch()
    assert [(r.offset, r.value, r.error) for r in found] == [
        (7 + n, b"%d" % n * 100, None) for n in range(50)
    ]


@pytest.mark.parametrize("codec", CODECS)
def test_a_header_name_that_is_no_utf8_costs_nothing(codec: str) -> None:
    raw = batch(
        [record(0), record(1, b"v", b"k", [BAD_NAME, (b"a", b"2")]), record(2)], codec=codec
    )
    found = Partition(raw).fetch()
    assert outcome(found) == [(0, True), (1, True), (2, True)]
    assert (found[1].key, found[1].value) == (b"k", b"v")
    assert found[1].headers == (("\ufffd\ufffd", b"1"), ("a", b"2"))
    assert found[1].timestamp == found[0].timestamp == 1_700_000_000_000


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_a_record_says_which_leader_appended_it(codec: str) -> None:
    salvaged = [record(0), record(1, headers=[BAD_NAME]), record(2, count=-1)]
    found = Partition(
        batch([record(0)], codec=codec, leader_epoch=4),
        batch(salvaged, 1, codec=codec, leader_epoch=5),
        batch([record(0)], 4, magic=3, leader_epoch=6),
    ).fetch()
    assert [(r.leader_epoch, r.error is None) for r in found] == [
        (4, True), (5, True), (5, True), (-1, False), (-1, False),
    ]  # fmt: skip


def test_a_header_without_a_value_has_an_empty_one() -> None:
    [found] = Partition(batch([record(0, headers=[(b"traceparent", None)])])).fetch()
    assert found.headers == (("traceparent", b""),)


@pytest.mark.parametrize(
    "broken",
    [
        record(1, count=-1),
        record(1, count=2**31 - 1),
        record(1, count=1),
        record(1, headers=[(b"a", b"1")], tail=b"rest"),
        record(1, tail=b"\x80" * 12),
        record(77),
        record(-5),
        varint(3) + b"\x00\x80\x80",
    ],
    ids=["-1", "2^31", "one too many", "rest", "varints", "offset 77", "offset -5", "short"],
)
@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_a_damaged_record_costs_itself(broken: bytes, codec: str) -> None:
    raw = batch([record(0, b"first"), broken, record(2, b"last")], 10, codec=codec)
    found = Partition(raw).fetch()
    assert outcome(found) == [(10, True), (11, False), (12, True)]
    assert found[1].value == broken
    assert found[1].error is not None
    assert "offset 11 cannot be unpacked" in found[1].error
    assert found[2].value == b"last"


@pytest.mark.parametrize("length", [-1, 0, 2**31 - 1, 2**40])
def test_a_length_that_cannot_be_believed_costs_the_rest_of_its_batch(length: int) -> None:
    raw = batch([record(0, b"first"), record(1, length=length), record(2), record(3)], 10)
    partition = Partition(raw, batch([record(0, b"next")], 14))
    found = partition.fetch()
    assert outcome(found) == [(10, True), (13, False), (14, True)]
    assert "offsets 11 to 13" in str(found[1].error)
    assert found[2].value == b"next"


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (batch([record(0)] * 3, 10, attributes=5), "codec 5"),
        (batch([record(0)] * 3, 10, attributes=7), "codec 7"),
        (batch([record(0)] * 3, 10, magic=3), "format is 3"),
        (batch([record(0)] * 3, 10, magic=1), "format is 1"),
        (batch([b""] * 3, 10, attributes=1, body=b"no gzip"), "broken"),
        (batch([b""] * 3, 10, attributes=1, body=CODECS["gzip"][1](b"x" * 99)[:-9]), "broken"),
        (batch([b""] * 3, 10, attributes=2, body=b"\xff" * 40), "broken"),
        (batch([b""] * 3, 10, attributes=2, body=b"\x82SNAPPY\x00" + b"\xff" * 40), "broken"),
        (batch([b""] * 3, 10, attributes=3, body=b"no lz4"), "broken"),
        (batch([b""] * 3, 10, attributes=4, body=b"no zstd"), "broken"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_batch_that_cannot_be_unpacked_is_one_record_at_its_last_offset(
    raw: bytes, why: str
) -> None:
    partition = Partition(batch([record(0)], 9), raw, batch([record(0)], 13))
    found = partition.fetch()
    assert outcome(found) == [(9, True), (12, False), (13, True)]
    assert "offsets 10 to 12" in str(found[1].error)
    assert why in str(found[1].error)
    assert found[1].value == raw
    assert partition.position == 14


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_a_batch_that_would_be_enormous_is_not_made(
    codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, compress = CODECS[codec]
    for size, fits in ((3_000_000, True), (3_000_001, False)):
        data = compress(b"\x00" * size)
        if fits:
            assert len(inflating.inflate(data, number, 3_000_000)) == size
        else:
            with pytest.raises(ValueError, match="over 3,000,000 bytes"):
                inflating.inflate(data, number, 3_000_000)


def test_a_fetch_of_much_that_is_compressed_is_worked_off_in_parts() -> None:
    big = [batch([record(0, b"\x00" * 6_000_000)], n, codec="zstd") for n in range(7)]
    partition = Partition(*big)
    assert [len(partition.fetch()) for _ in range(3)] == [3, 3, 1]


def test_a_wrong_checksum_is_read_again_before_it_is_believed() -> None:
    good = batch([record(0), record(1)], 4)
    partition = Partition(batch([record(0)], 3), good[:-1] + b"\xee", batch([record(0)], 6))
    assert outcome(partition.fetch()) == [(3, True)]
    assert partition.position == 4
    again = partition.fetch()
    assert outcome(again) == [(5, False), (6, True)]
    assert "offsets 4 to 5 cannot be unpacked: its checksum is wrong" in str(again[0].error)


def test_a_wrong_checksum_on_the_way_costs_nothing() -> None:
    good = batch([record(0), record(1)], 0)
    partition = Partition(good[:-1] + b"\xee")
    assert partition.fetch() == []
    partition.batches = [good]
    assert outcome(partition.fetch()) == [(0, True), (1, True)]


@pytest.mark.parametrize("last_delta", [-1, -(2**31), 1, 2**31 - 1])
def test_the_end_of_a_damaged_batch_is_believed_as_far_as_the_next_one(last_delta: int) -> None:
    bad = batch([record(0), record(1)], 4, last_delta=last_delta)[:-1] + b"\xee"
    partition = Partition(bad, batch([record(0)], 6))
    partition.position = 4
    assert partition.fetch() == []
    assert outcome(partition.fetch())[-1] == (6, True)
    alone = Partition(bad, end=6)
    alone.position = 4
    assert alone.fetch() == []
    alone.fetch()
    assert 4 < alone.position <= 6


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_bytes_come_reading_ends_and_goes_on_behind_them(data: Any) -> None:
    codec = data.draw(st.sampled_from(sorted(CODECS)))
    records = [record(n, b"v%d" % n, b"k", [(b"h", b"1")]) for n in range(4)]
    content = bytearray(b"".join(records))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=12))
        content = content or bytearray(1)
    compress = CODECS[codec][1]
    raw = batch(records, 10, codec=codec, body=compress(bytes(content)))
    if data.draw(st.booleans()):
        at = data.draw(st.integers(12, len(raw) - 1))
        raw = raw[:at] + data.draw(st.binary(min_size=1, max_size=1)) + raw[at + 1 :]
    if data.draw(st.booleans()):
        raw = resealed(raw)
    partition = Partition(raw, batch([record(0, b"next")], 14))
    found: list[Record] = []
    for _ in range(3):
        found += partition.fetch()
        if partition.position >= 15:
            break
    assert partition.position == 15
    offsets = [r.offset for r in found]
    assert offsets == sorted(set(offsets)), "each offset once, in order"
    assert found[-1].value == b"next"
    for each in found:
        letter = dead_letter("me", "no JSON", each)
        assert (b"cannot be unpacked" in dict(letter.headers)["anabranch-reason"]) == (
            each.error is not None
        )
