"""Whatever stands in `queries`: a dead letter, an answer if there is an id, and on it goes."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from pipelines import found

from anabranch.contract.events import Item
from anabranch.kafka.dead_letters import HEADER_REASON, HEADER_SOURCE_OFFSET, HEADER_TOPIC

AB = {"a": found("a"), "b": found("b")}
GOOD = json.dumps({"id": "good", "type": "t", "params": {"n": 1}, "timeout_ms": 20_000}).encode()


def query(**fields: Any) -> bytes:
    return json.dumps({"id": "bad", "type": "t", "params": {}} | fields).encode()


BAD = {
    "bytes that are no JSON": (b"\x00\xff\xfe not json", None),
    "JSON that is no query": (b"[1, 2, 3]", None),
    "an object without a type": (b'{"id": "bad"}', "bad"),
    "no layers for an unknown type": (query(type="unheard"), "bad"),
    "an empty list of layers": (query(layers=[]), "bad"),
    "a wrong type of params": (query(params=[1]), "bad"),
    "a wrong type of limit": (query(limit="many"), "bad"),
    "a timeout of zero": (query(timeout_ms=0), "bad"),
    "a timeout below zero": (query(timeout_ms=-5), "bad"),
    "two megabytes": (query(params={"text": "x" * 2_000_000}), "bad"),
    "an empty value": (b"", None),
    "a null value": (None, None),
    "a reply topic that is not allowed": (query(reply_to="secrets"), "bad"),
    "an id that is no string": (b'{"id": 5, "type": "t"}', None),
    "an empty id": (query(id=""), None),
    "a thousand nested arrays": (b'{"id":"bad","type":"t","params":{"x":' + b"[" * 1_000, "bad"),
}


@pytest.mark.parametrize("what", BAD)
async def test_a_dead_letter_an_answer_and_on_it_goes(start: Any, what: str) -> None:
    value, answered = BAD[what]
    async with start(AB) as pipeline, pipeline.producer() as producer:
        topics = pipeline.topics
        sent = await producer.send_and_wait(topics.queries, value, key=b"k", partition=0)
        await producer.send_and_wait(topics.queries, GOOD, key=b"k", partition=0)
        (letter,) = await pipeline.records(topics.dlq, 1)
        results = await pipeline.records(topics.results, 2 if answered else 1)
    headers = dict(letter.headers)
    assert (letter.key, letter.value or b"") == (b"k", value or b"")
    assert headers[HEADER_REASON]
    assert headers[HEADER_TOPIC] == topics.queries.encode()
    assert headers[HEADER_SOURCE_OFFSET] == b"%d" % sent.offset
    answers = {a["id"]: a for a in (json.loads(r.value) for r in results)}
    assert answers["good"]["status"] == "complete"
    if answered:
        assert answers[answered]["status"] == "failed"
        assert answers[answered]["error"]["code"] == "invalid_query"


async def test_a_repeated_id_is_dropped_and_counted(start: Any) -> None:
    async with start(AB) as pipeline, pipeline.producer() as producer:
        for value in (query(id="twice"), query(id="twice"), GOOD):
            await producer.send_and_wait(pipeline.topics.queries, value, partition=0)
        results = await pipeline.records(pipeline.topics.results, 2)
        assert sorted(r.key for r in results) == [b"good", b"twice"]
        assert pipeline.coordinator.query.counters.duplicates == 1


async def test_a_producer_whose_clock_is_an_hour_off_changes_nothing(start: Any) -> None:
    async with start(AB) as pipeline, pipeline.producer() as producer:
        for hours in (-1, 1):
            await producer.send_and_wait(
                pipeline.topics.queries,
                query(id=f"q{hours}", timeout_ms=20_000),
                partition=0,
                timestamp_ms=int(time.time() * 1000) + hours * 3_600_000,
            )
        results = await pipeline.records(pipeline.topics.results, 2)
    assert {json.loads(r.value)["status"] for r in results} == {"complete"}


async def test_a_timeout_above_the_maximum_is_cut_to_it(start: Any) -> None:
    async with start(AB) as pipeline:
        answer = await pipeline.client.ask("t", {"n": 1}, timeout_ms=10**12, strategy="parallel")
        (task,) = await pipeline.records(pipeline.topics.tasks("default", "medium"), 1)
        limit_ms = pipeline.config.coordinator.max_timeout_ms
        assert answer.status == "complete"
        assert json.loads(task.value)["deadline_ms"] <= time.time() * 1000 + limit_ms + 1_000


async def raises(_: Any) -> Any:
    raise RuntimeError("disk on fire")


async def hangs(_: Any) -> Any:
    await asyncio.Event().wait()


async def nonsense(_: Any) -> Any:
    return {"what": "ever"}


async def huge(_: Any) -> Any:
    return [Item("urn:x", 1.0, "x" * 10_000_000)]


@pytest.mark.parametrize(
    ("layer", "status", "said"),
    [
        (raises, "error", "the layer raised RuntimeError"),
        (hangs, "timeout", ""),
        (nonsense, "error", "gave dict"),
        (huge, "error", "max_bytes"),
    ],
)
async def test_a_bad_layer_costs_its_own_answer_only(
    start: Any, layer: Any, status: str, said: str
) -> None:
    async with start({"a": found("a"), "b": layer}) as pipeline:
        answer = await pipeline.client.ask("t", {"n": 1}, strategy="parallel", timeout_ms=3_000)
        after = await pipeline.client.ask("t", {"n": 2}, layers=["a"], timeout_ms=20_000)
    assert answer.layers["b"].status == status
    assert said in (answer.layers["b"].error or "")
    assert [item.id for item in answer.items] == ["urn:1:a"]
    assert after.status == "complete"
