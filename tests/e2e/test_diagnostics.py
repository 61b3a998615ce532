"""Statistics and orders on a real broker, by the client and by the command."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from pipelines import Pipeline, found

AB = {"a": found("a"), "b": found("b")}


async def command(pipeline: Pipeline, *words: str) -> tuple[int | None, str]:
    """Exit code and output of `anabranch`, as another process on the same broker."""
    config = pipeline.config
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "anabranch", *words,
        "--bootstrap", config.kafka.bootstrap, "--namespace", config.namespace,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    shown, _ = await process.communicate()
    return process.returncode, shown.decode()


async def ask(pipeline: Pipeline) -> Any:
    return await pipeline.client.ask("t", {"n": 1}, timeout_ms=10_000)


async def test_statistics_and_an_invalidation_through_the_broker(start: Any) -> None:
    async with start(AB) as pipeline:
        await ask(pipeline)
        count = await pipeline.client.invalidate_cross_layer_cache_layer("a")
        again = await ask(pipeline)
        report = await pipeline.client.get_phase_7bc_diagnostics()
    assert count == 1
    assert {name: layer.source == "cache" for name, layer in again.layers.items()} == {
        "a": False,
        "b": True,
    }
    assert [member["state"] for member in report["coordinators"]] == ["ready"]
    assert [worker["state"] for worker in report["worker_pool"]["default"]] == ["ready"]
    assert report["cross_layer_cache"]["total"]["probes"] >= 1
    assert not report["silent"]


async def test_the_commands_reach_a_running_pipeline(start: Any) -> None:
    async with start(AB) as pipeline:
        await ask(pipeline)
        forgot = await command(pipeline, "invalidate", "b", "--json")
        shown = await command(pipeline, "diagnostics")
        everything = await command(pipeline, "diagnostics", "--json")
    assert forgot[0] == 0
    assert json.loads(forgot[1])["slots"] == 1
    assert shown[0] == 0
    assert pipeline.coordinator.instance in shown[1]
    assert json.loads(everything[1])["coordinators"][0]["instance"] == pipeline.coordinator.instance
