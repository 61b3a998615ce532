"""A question that ends every worker that takes it is given up; all others are answered."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest
from fleet import Fleet

from anabranch.client import Client
from anabranch.config.settings import KafkaConfig, load
from anabranch.contract.rejected import QueryRejected
from anabranch.kafka.client import KafkaTransport
from anabranch.kafka.topics import ensure_topics
from anabranch.runtime.supervisor import until

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

SETTINGS = """
namespace = "{namespace}"
[kafka]
bootstrap = "{bootstrap}"
[topics]
queries = 2
tasks = 2
[types.t]
layers = ["d"]
[layers.d]
plugin = "deadly:Deadly"
"""


async def keep_one_worker(fleet: Fleet, born: list[str]) -> None:
    """As a supervisor does."""
    while True:
        if not born or fleet.processes[born[-1]].returncode is not None:
            name = f"w{len(born) + 1}"
            await fleet.start(name, "worker", PYTHONPATH=str(Path(__file__).parent))
            born.append(name)
        await asyncio.sleep(0.2)


async def test_the_third_worker_that_dies_of_a_question_is_the_last(
    kafka: str, tmp_path: Path
) -> None:
    path = tmp_path / "anabranch.toml"
    path.write_text(SETTINGS.format(namespace=f"w{uuid4().hex[:8]}.", bootstrap=kafka))
    config = load(path, environ={})
    await ensure_topics(KafkaTransport(KafkaConfig(bootstrap=kafka)), config, config.groups)
    fleet, born = Fleet(path), list[str]()
    await fleet.start("c1", "coordinator")
    keeping = asyncio.ensure_future(keep_one_worker(fleet, born))
    try:
        async with asyncio.timeout(120):
            await until(lambda: fleet.is_ready("c1"), 0.1)
            async with Client(config) as client:
                with pytest.raises(QueryRejected, match="3 workers died"):
                    await client.ask("t", {"poison": 1}, timeout_ms=60_000)
                with pytest.raises(QueryRejected, match="3 workers died"):
                    await client.ask("t", {"poison": 1}, timeout_ms=60_000)
                good = await client.ask("t", {"n": 1}, timeout_ms=60_000)
        assert good.status == "complete"
        assert fleet.processes["c1"].returncode is None
        assert len(born) >= 4
    finally:
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping
        await fleet.kill_all()
