"""A query event in, one joined answer out, on a real broker."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from pipelines import found

from anabranch.contract.events import HEADER_OFFSET, HEADER_TRACEPARENT, HEADER_TRACESTATE
from anabranch.contract.rejected import QueryRejected
from anabranch.errors import QueryTimeout
from anabranch.kafka.dead_letters import HEADER_REASON

AB = {"a": found("a"), "b": found("b")}


def ids(answer: Any) -> set[str]:
    return {item.id for item in answer.items}


@pytest.mark.parametrize("strategy", ["auto", "sequential", "parallel", "distributed"])
async def test_each_strategy_joins_all_layers(start: Any, strategy: Any) -> None:
    async with start(AB) as pipeline:
        answer = await pipeline.client.ask("t", {"n": 1}, strategy=strategy, timeout_ms=10_000)
    assert answer.status == "complete"
    assert ids(answer) == {"urn:1:a", "urn:1:b"}
    assert not answer.missing
    assert answer.reason
    if strategy != "auto":
        assert answer.strategy == strategy
        assert {layer.source for layer in answer.layers.values()} == {strategy}


async def test_a_repeated_question_is_answered_from_the_cache(start: Any) -> None:
    calls = 0

    async def counted(request: Any) -> Any:
        nonlocal calls
        calls += 1
        return await found("a")(request)

    async with start({"a": counted, "b": found("b")}) as pipeline:
        first = await pipeline.client.ask("t", {"n": 1}, timeout_ms=10_000)
        again = await pipeline.client.ask("t", {"n": 1}, timeout_ms=10_000)
        past = await pipeline.client.ask("t", {"n": 1}, max_age_ms=0, timeout_ms=10_000)
        scoped = await pipeline.client.ask("t", {"n": 1}, scope="other", timeout_ms=10_000)
    assert again.strategy == "cache"
    assert again.items == first.items
    assert past.strategy != "cache"
    assert scoped.strategy != "cache", "no answer crosses scopes"
    assert calls == 3


async def test_what_is_not_cached_is_missing_when_only_the_cache_may_answer(start: Any) -> None:
    async with start(AB) as pipeline:
        await pipeline.client.ask("t", {"n": 1}, layers=["a"], timeout_ms=10_000)
        answer = await pipeline.client.ask("t", {"n": 1}, strategy="cache", timeout_ms=10_000)
    assert (answer.status, answer.strategy) == ("partial", "cache")
    assert ids(answer) == {"urn:1:a"}
    assert [missing.layer for missing in answer.missing] == ["b"]


async def test_one_query_is_cached_and_fetched_from_two_groups(start: Any) -> None:
    three = {**AB, "c": found("c")}
    async with start(three, {"io": ["a", "b"], "cpu": ["c"]}) as pipeline:
        await pipeline.client.ask("t", {"n": 1}, layers=["a"], timeout_ms=10_000)
        answer = await pipeline.client.ask(
            "t", {"n": 1}, layers=["a", "b", "c"], strategy="parallel", timeout_ms=10_000
        )
    assert answer.status == "complete"
    sources = {name: layer.source for name, layer in answer.layers.items()}
    assert sources == {"a": "cache", "b": "parallel", "c": "parallel"}


async def test_sequential_stops_when_enough_has_come(start: Any) -> None:
    async with start(AB) as pipeline:
        answer = await pipeline.client.ask(
            "t", {"n": 1}, strategy="sequential", min_coverage=0.5, limit=1, timeout_ms=10_000
        )
    statuses = sorted(layer.status for layer in answer.layers.values())
    assert (answer.status, statuses) == ("partial", ["ok", "skipped"])
    assert "enough" in answer.missing[0].why


async def test_an_answer_goes_out_early_once_coverage_is_met(start: Any) -> None:
    release = asyncio.Event()

    async def waits(request: Any) -> Any:
        await release.wait()
        return []

    async with start({"a": found("a"), "b": waits}) as pipeline:
        answer = await pipeline.client.ask(
            "t", {"n": 1}, strategy="parallel", min_coverage=0.5, timeout_ms=20_000
        )
        release.set()
    assert (answer.status, ids(answer)) == ("partial", {"urn:1:a"})


@pytest.mark.parametrize("priority", ["critical", "high", "medium", "low"])
async def test_each_priority_has_its_way(start: Any, priority: Any) -> None:
    async with start(AB) as pipeline:
        answer = await pipeline.client.ask("t", {"n": 1}, priority=priority, timeout_ms=10_000)
    assert answer.status == "complete"


async def test_many_questions_at_once_are_each_answered_with_their_own(start: Any) -> None:
    async with start(AB) as pipeline:
        answers = await asyncio.gather(
            *(pipeline.client.ask("t", {"n": n}, timeout_ms=20_000) for n in range(200))
        )
    assert [ids(answer) for answer in answers] == [{f"urn:{n}:a", f"urn:{n}:b"} for n in range(200)]


async def test_a_subscriber_sees_every_answer_once(start: Any) -> None:
    async with start(AB) as pipeline:
        stream = pipeline.client.answers()
        first = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)  # let the stream subscribe
        asked = await pipeline.client.ask("t", {"n": 1}, timeout_ms=10_000)
        assert (await asyncio.wait_for(first, 20)) == asked
        await stream.aclose()


async def test_plain_aiokafka_and_json_are_enough(start: Any) -> None:
    async with start(AB) as pipeline, pipeline.producer() as producer:
        await producer.send_and_wait(
            pipeline.topics.queries,
            json.dumps({"id": "q1", "type": "t", "params": {"n": 7}}).encode(),
        )
        (record,) = await pipeline.records(pipeline.topics.results, 1)
    answer = json.loads(record.value)
    assert record.key == b"q1"
    assert (answer["id"], answer["status"]) == ("q1", "complete")
    assert {item["id"] for item in answer["items"]} == {"urn:7:a", "urn:7:b"}


async def test_a_copy_goes_to_the_reply_topic(start: Any) -> None:
    async with start(AB) as pipeline, pipeline.producer() as producer:
        reply_to = f"replies.{pipeline.config.namespace}x"
        await pipeline.create(reply_to)
        query = {
            "id": "q1",
            "type": "t",
            "params": {"n": 7},
            "reply_to": reply_to,
            "timeout_ms": 9_000,
        }
        await producer.send_and_wait(pipeline.topics.queries, json.dumps(query).encode())
        (answer,) = await pipeline.records(pipeline.topics.results, 1)
        (copy,) = await pipeline.records(reply_to, 1)
    assert copy.value == answer.value


@pytest.mark.kafka
@pytest.mark.parametrize("config", ["kafka"], indirect=True)  # elsewhere topics just appear
async def test_a_reply_topic_that_is_not_there_stops_nothing(start: Any) -> None:
    async with start(AB) as pipeline, pipeline.producer() as producer:
        query = {"id": "q1", "type": "t", "params": {"n": 7}, "reply_to": "replies.nowhere"}
        await producer.send_and_wait(pipeline.topics.queries, json.dumps(query).encode())
        (answer,) = await pipeline.records(pipeline.topics.results, 1)
        (letter,) = await pipeline.records(pipeline.topics.dlq, 1)
    assert json.loads(answer.value)["status"] == "complete"
    assert letter.value == answer.value
    assert b"reply to replies" in dict(letter.headers)[HEADER_REASON]


@pytest.mark.kafka
@pytest.mark.parametrize("config", ["kafka"], indirect=True)
@pytest.mark.parametrize("mode", ["at_least_once", "exactly_once"])
async def test_a_reply_topic_that_refuses_a_copy_costs_the_copies_alone(
    start: Any, mode: str
) -> None:
    async with start(AB, mode=mode) as pipeline, pipeline.producer() as producer:
        reply_to = f"replies.{pipeline.config.namespace}small"
        await pipeline.create(reply_to, {"max.message.bytes": "200"})
        queries = [{"id": f"q{n}", "type": "t", "params": {"n": n}} for n in range(6)]
        for n, query in enumerate(queries):
            asked = query | {"timeout_ms": 20_000} | ({"reply_to": reply_to} if n % 2 else {})
            await producer.send(pipeline.topics.queries, json.dumps(asked).encode(), partition=0)
        answers = await pipeline.records(pipeline.topics.results, 6)
        letters = await pipeline.records(pipeline.topics.dlq, 3)
    told = [json.loads(record.value) for record in answers]
    assert {answer["id"]: answer["status"] for answer in told} == {
        query["id"]: "complete" for query in queries
    }
    assert {json.loads(letter.value)["id"] for letter in letters} == {"q1", "q3", "q5"}
    assert all(b"reply to replies" in dict(each.headers)[HEADER_REASON] for each in letters)


@pytest.mark.kafka
@pytest.mark.parametrize("config", ["kafka"], indirect=True)
@pytest.mark.parametrize("mode", ["at_least_once", "exactly_once"])
async def test_many_reply_topics_that_are_not_there_hold_up_nobody(
    start: Any, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with start(AB, mode=mode) as pipeline, pipeline.producer() as producer:
        for n in range(600):
            query = {"id": f"q{n}", "type": "t", "params": {"n": n}, "timeout_ms": 30_000}
            if n % 2:
                query["reply_to"] = f"replies.nowhere-{n}"
            await producer.send(pipeline.topics.queries, json.dumps(query).encode())
        answers = await pipeline.records(pipeline.topics.results, 600)
        letters = await pipeline.records(pipeline.topics.dlq, 300)
        followed = await pipeline.coordinator.parts.replies.lookup("replies.nowhere-1")
    assert {json.loads(answer.value)["status"] for answer in answers} == {"complete"}
    assert all(b"no such topic" in dict(each.headers)[HEADER_REASON] for each in letters)
    assert not followed, "asking made none"
    assert sum("nowhere" in record.getMessage() for record in caplog.records) < 10


@pytest.mark.parametrize("name", ["a/b", "..", "replies.ü", "replies." + "x" * 300])
async def test_a_reply_topic_that_cannot_be_is_refused_at_once(start: Any, name: str) -> None:
    async with start(AB) as pipeline, pipeline.producer() as producer:
        query = {"id": "q1", "type": "t", "params": {}, "reply_to": name}
        await producer.send_and_wait(pipeline.topics.queries, json.dumps(query).encode())
        (answer,) = await pipeline.records(pipeline.topics.results, 1)
    error = json.loads(answer.value)["error"]
    assert error["code"] == "invalid_query"


async def test_headers_carry_trace_and_offset_through_everything(start: Any) -> None:
    parent = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
    async with start(AB) as pipeline, pipeline.producer() as producer:
        await producer.send_and_wait(
            pipeline.topics.queries,
            json.dumps(
                {"id": "q1", "type": "t", "params": {"n": 1}, "strategy": "parallel"}
            ).encode(),
            partition=0,
            headers=[(HEADER_TRACEPARENT, parent), (HEADER_TRACESTATE, b"k=v")],
        )
        (answer,) = await pipeline.records(pipeline.topics.results, 1)
        (partial,) = await pipeline.records(pipeline.topics.partials, 1)
        (task,) = await pipeline.records(pipeline.topics.tasks("default", "medium"), 1)
    for record in (answer, partial, task):
        headers = dict(record.headers)
        assert headers[HEADER_TRACEPARENT] == parent
        assert headers[HEADER_TRACESTATE] == b"k=v"
        assert headers[HEADER_OFFSET] == b"0"
        assert len(record.headers) == len(headers), "replaced, never appended"
    assert json.loads(answer.value)["trace_id"] == "0af7651916cd43dd8448eb211c80319c"


async def test_the_deadline_brings_what_came_and_names_what_did_not(start: Any) -> None:
    never = asyncio.Event()

    async def hangs(request: Any) -> Any:
        await never.wait()

    async with start({"a": found("a"), "b": hangs}) as pipeline:
        answer = await pipeline.client.ask("t", {"n": 1}, strategy="parallel", timeout_ms=700)
    assert (answer.status, ids(answer)) == ("partial", {"urn:1:a"})
    assert answer.layers["b"].status == "timeout"
    assert [missing.layer for missing in answer.missing] == ["b"]


async def test_a_layer_without_a_descriptor_is_skipped_and_the_others_answer(start: Any) -> None:
    async with start(AB) as pipeline:
        answer = await pipeline.client.ask("t", {"n": 1}, layers=["a", "nobody"], timeout_ms=10_000)
        assert (answer.status, ids(answer)) == ("partial", {"urn:1:a"})
        assert answer.layers["nobody"].status == "skipped"
        assert "no worker has announced" in answer.missing[0].why
        with pytest.raises(QueryRejected, match="unavailable"):
            await pipeline.client.ask("t", {"n": 1}, layers=["nobody"], timeout_ms=10_000)


async def test_silence_of_the_pipeline_is_a_timeout_that_says_what_to_look_at(start: Any) -> None:
    async with start(AB) as pipeline:
        partitions = list(pipeline.coordinator.query.owned.values())
        for partition in partitions:
            partition.held = True  # a coordinator that holds its answers
        pipeline.client._grace_ms = 100
        with pytest.raises(QueryTimeout, match="is a coordinator running"):
            await pipeline.client.ask("t", {"n": 1}, timeout_ms=200)
        for partition in partitions:
            partition.release()
