"""What another client compresses, names or damages: it costs one record, on every topic."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from confluent_kafka import Producer
from pipelines import found
from raw_batches import CODECS, batch, record
from raw_producer import RawProducer

from anabranch.kafka.dead_letters import HEADER_RAW, HEADER_REASON, HEADER_TOPIC
from anabranch.kafka.transport import TopicPartition

AB = {"a": found("a"), "b": found("b")}
NAME = [(b"\xff\xfe", b"1"), (b"traceparent", None)]


def query(n: int) -> bytes:
    fields = {"id": f"q{n}", "type": "t", "params": {"n": n}, "timeout_ms": 20_000}
    return json.dumps(fields).encode()


async def test_a_question_is_answered_whatever_codec_its_producer_uses(start: Any) -> None:
    async with start(AB) as pipeline:
        for n, codec in enumerate(CODECS):
            settings = {
                "bootstrap.servers": pipeline.config.kafka.bootstrap, "compression.type": codec,
            }  # fmt: skip
            other = Producer(settings)
            for part in range(5):
                other.produce(pipeline.topics.queries, query(5 * n + part), partition=0)
            assert await asyncio.to_thread(other.flush, 30) == 0
        answers = await pipeline.records(pipeline.topics.results, 5 * len(CODECS))
    assert {json.loads(answer.value)["status"] for answer in answers} == {"complete"}


@pytest.mark.parametrize("codec", ["none", "lz4"])
async def test_a_header_name_that_is_no_utf8_costs_nothing(start: Any, codec: str) -> None:
    async with start(AB) as pipeline, RawProducer(pipeline.config.kafka.bootstrap) as raw:
        records = [record(n, query(n), headers=NAME if n == 1 else ()) for n in range(3)]
        await raw.send(TopicPartition(pipeline.topics.queries, 0), batch(records, codec=codec))
        answers = await pipeline.records(pipeline.topics.results, 3)
    assert {json.loads(answer.value)["status"] for answer in answers} == {"complete"}


async def test_damage_on_every_topic_is_buried_and_passed(start: Any) -> None:
    """Of `results` and `dlq` nobody who buries reads every record; the first is passed all the
    same, of the other see tests/unit/kafka/test_dead_letters.py."""
    async with start(AB) as pipeline, RawProducer(pipeline.config.kafka.bootstrap) as raw:
        topics = pipeline.topics
        lying = [record(delta, b"{}", b"k") for delta in (0, 2**31 - 1, 2)]
        read = {
            topics.queries, topics.partials, topics.health, topics.control, topics.telemetry,
            topics.tasks("default", "high"),
        }  # fmt: skip
        for topic in (*read, topics.results):
            await raw.send(TopicPartition(topic, 0), batch(lying))
        answers = await asyncio.gather(
            *(pipeline.client.ask("t", {"n": n}, timeout_ms=20_000) for n in range(9))
        )
        assert {answer.status for answer in answers} == {"complete"}
        told: set[str] = set()
        async with pipeline.reading(topics.dlq) as letters, asyncio.timeout(60):
            while told != read:
                headers = dict((letter := await letters.getone()).headers)
                if HEADER_RAW in headers:
                    assert b"cannot be unpacked" in headers[HEADER_REASON]
                    assert letter.value == lying[1]
                    told.add(headers[HEADER_TOPIC].decode())
