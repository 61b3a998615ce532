"""What a supervisor sees of processes that start, work, stand still, block and drain."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from fleet import Fleet

from anabranch.client import Client
from anabranch.config.settings import load
from anabranch.runtime.supervisor import until

SETTINGS = """
namespace = "{namespace}"
[kafka]
bootstrap = "{bootstrap}"
[types.t]
layers = ["s"]
[layers.s]
plugin = "slow_layers:Slow"
"""
PATIENCE_S = 1.0


class Asked:
    """A pipeline of processes, and the answers of their health ports."""

    def __init__(self, path: Path) -> None:
        self.config = load(path, environ={})
        self.fleet = Fleet(path)

    async def start(self) -> None:
        for role in ("coordinator", "worker"):
            here = str(Path(__file__).parent)
            await self.fleet.start(role, role, "--health-port", "0", PYTHONPATH=here)

    async def get(self, name: str, path: str) -> tuple[int, dict[str, Any]]:
        """Status and body; 0 if nobody answers."""
        port = re.search(r"http://127.0.0.1:(\d+)/", self.fleet.log(name).read_text())
        return await asyncio.to_thread(_get, f"http://127.0.0.1:{port[1]}{path}") if port else NONE

    async def until(self, name: str, path: str, status: int) -> dict[str, Any]:
        """The body that came with a status, once it comes."""
        async with asyncio.timeout(60):
            while True:
                found, body = await self.get(name, path)
                if found == status:
                    return body
                await asyncio.sleep(0.05)


NONE: tuple[int, dict[str, Any]] = (0, {})


def _get(url: str) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as got:
            return got.status, json.load(got)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
    except OSError:
        return NONE


@pytest.fixture
async def pipeline(embedded: str, tmp_path: Path) -> AsyncIterator[Asked]:
    path = tmp_path / "anabranch.toml"
    path.write_text(SETTINGS.format(namespace=f"h{uuid4().hex[:8]}.", bootstrap=embedded))
    asked = Asked(path)
    await asked.start()
    try:
        yield asked
    finally:
        await asked.fleet.kill_all()


async def test_who_starts_is_live_and_who_works_is_ready(pipeline: Asked) -> None:
    for name in ("coordinator", "worker"):
        await pipeline.until(name, "/live", 200)
        assert await pipeline.until(name, "/ready", 200) == {"ready": True, "state": "ready"}
        live = await pipeline.until(name, "/live", 200)
        assert live["live"]
        assert live["tasks"] > 0


async def test_who_is_stopped_is_silent_and_comes_back(pipeline: Asked) -> None:
    await pipeline.until("coordinator", "/ready", 200)
    pipeline.fleet.signal("coordinator", signal.SIGSTOP)
    await pipeline.until("coordinator", "/live", 0)
    pipeline.fleet.signal("coordinator", signal.SIGCONT)
    await pipeline.until("coordinator", "/live", 200)
    await pipeline.until("coordinator", "/ready", 200)


async def test_a_layer_that_blocks_its_worker_is_found_out_and_named(pipeline: Asked) -> None:
    await pipeline.fleet.ready()
    async with Client(pipeline.config) as client:
        asking = asyncio.ensure_future(client.ask("t", {"blocks_s": 8}, timeout_ms=30_000))
        stood = await pipeline.until("worker", "/live", 503)
        assert not stood["live"]
        assert stood["loop_stood_s"] >= 5
        ready = await pipeline.get("worker", "/ready")
        assert ready == (503, {"ready": False, "state": "stuck"})
        await pipeline.until("worker", "/ready", 200)
        assert (await asking).status == "complete"
    assert "slow_layers.py" in pipeline.fleet.log("worker").read_text()


async def test_who_drains_is_live_but_not_ready_and_ends_well(pipeline: Asked) -> None:
    await pipeline.fleet.ready()
    async with Client(pipeline.config) as client:
        asking = asyncio.ensure_future(client.ask("t", {"takes_s": 3}, timeout_ms=30_000))
        async with asyncio.timeout(30):
            await until(lambda: "asked" in pipeline.fleet.log("worker").read_text(), 0.05)
        pipeline.fleet.signal("worker", signal.SIGTERM)
        draining = await pipeline.until("worker", "/ready", 503)
        assert draining == {"ready": False, "state": "draining"}
        assert (await pipeline.get("worker", "/live"))[0] == 200
        assert (await asking).status == "complete"
        assert await pipeline.fleet.processes["worker"].wait() == 0
