"""`anabranch dlq` on dead letters of a running pipeline: listed, shown, sent back."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any

from pipelines import Pipeline, found

AB = {"a": found("a"), "b": found("b")}
GARBAGE = b"\x00\xff not json"


async def dlq(pipeline: Pipeline, *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error, as a person gets them."""
    config = pipeline.config
    done = await asyncio.to_thread(
        subprocess.run,
        [
            sys.executable, "-m", "anabranch", "dlq", *arguments,
            "--bootstrap", config.kafka.bootstrap, "--namespace", config.namespace,
        ],
        capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


async def listed(pipeline: Pipeline) -> list[dict[str, Any]]:
    code, out, error = await dlq(pipeline, "list", "--json")
    assert code == 0, error
    letters: list[dict[str, Any]] = json.loads(out)
    return letters


async def test_dead_letters_are_listed_shown_and_sent_back_to_where_they_came_from(
    start: Any,
) -> None:
    async with start(AB) as pipeline, pipeline.producer() as producer:
        queries = pipeline.topics.queries
        sent = await producer.send_and_wait(
            queries, GARBAGE, key=b"k", partition=1, headers=[("mine", b"1")]
        )
        await pipeline.records(pipeline.topics.dlq, 1)
        (letter,) = await listed(pipeline)
        assert (letter["topic"], letter["partition"]) == (queries, 1)
        assert letter["offset"] == sent.offset
        assert letter["instance"] == pipeline.coordinator.instance
        assert letter["reason"]

        code, out, _ = await dlq(pipeline, "list")
        assert code == 0
        assert letter["place"] in out
        code, out, _ = await dlq(pipeline, "show", letter["place"], "--json")
        shown = json.loads(out)
        assert code == 0
        assert (shown["key"], shown["value"]) == ("k", "\x00\\xff not json")
        assert ["mine", "1"] in shown["headers"]

        code, out, error = await dlq(pipeline, "replay", letter["place"])
        assert (code, out) == (2, "")
        assert "--yes" in error
        code, out, error = await dlq(pipeline, "replay", letter["place"], "--yes")
        assert code == 0, error
        again = (await pipeline.records(queries, 2))[-1]
        assert (again.key, again.value, again.partition) == (b"k", GARBAGE, 1)
        assert dict(again.headers)["mine"] == b"1"
        await pipeline.records(pipeline.topics.dlq, 3)  # unreadable still, and a note of the replay
        letters = await listed(pipeline)
        assert [each["replayed"] for each in letters] == [True, False]
        code, _, error = await dlq(pipeline, "replay", letter["place"], "--yes")
        assert code == 0
        assert "it was replayed before" in error


async def test_each_kind_of_letter_says_why_and_keeps_what_it_had(start: Any) -> None:
    refused = {"id": "r", "type": "t", "params": {}, "reply_to": "elsewhere"}
    wide = [("mine", b"x" * 40_000)]
    async with start(AB) as pipeline, pipeline.producer() as producer:
        code, out, _ = await dlq(pipeline, "list")
        assert (code, out.strip()) == (0, "there are no dead letters")
        assert await listed(pipeline) == []
        queries = pipeline.topics.queries
        for value in (GARBAGE, b"\x00", json.dumps(refused).encode(), b" " * 1_500_000):
            await producer.send_and_wait(queries, value, partition=0, headers=wide)
        await pipeline.records(pipeline.topics.dlq, 4)
        garbage, other, reply, large = await listed(pipeline)
        assert garbage["stack"] == other["stack"] != large["stack"]
        assert reply["id"] == "r"
        assert "reply_to 'elsewhere' is not among" in reply["reason"]
        assert "1,500,000 bytes" in large["reason"]
        assert not any(letter["truncated"] for letter in (garbage, other, reply, large))
        code, out, _ = await dlq(pipeline, "show", reply["place"], "--json")
        shown = json.loads(out)
        assert ["mine", "x" * 40_000] in shown["headers"]
        assert json.loads(shown["value"]) == refused


async def test_a_place_without_a_letter_is_said(start: Any) -> None:
    async with start(AB) as pipeline, pipeline.producer() as producer:
        await producer.send_and_wait(pipeline.topics.queries, GARBAGE, partition=0)
        await pipeline.records(pipeline.topics.dlq, 1)
        code, _, error = await dlq(pipeline, "show", "0:99")
        assert code == 2
        assert "there is no dead letter at 0:99" in error
