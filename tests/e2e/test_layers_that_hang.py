"""A worker whose layers hang or call exit: others answer, and the process ends when it is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
from fleet import Fleet

from anabranch.client import Client
from anabranch.config.settings import Config, load

LAYERS = {
    "hangs": "Hangs",
    "pool": "HangsInThePool",
    "exits": "Exits",
    "thread": "ExitsInAThread",
    "good": "Answers",
}
SETTINGS = """
namespace = "{namespace}"
kafka.bootstrap = "{bootstrap}"
worker.slots = 8
worker.drain_timeout_ms = 1000
"""


@pytest.fixture
async def fleet(embedded: str, tmp_path: Path) -> AsyncIterator[tuple[Fleet, Config]]:
    path = tmp_path / "anabranch.toml"
    settings = SETTINGS.format(namespace=f"h{uuid4().hex[:8]}.", bootstrap=embedded)
    settings += f"[types.t]\nlayers = {list(LAYERS)}\n"
    for name, plugin in LAYERS.items():
        settings += f'[layers.{name}]\nplugin = "hanging_layers:{plugin}"\n'
    path.write_text(settings)
    started = Fleet(path)
    for role in ("coordinator", "worker"):
        await started.start(role, role, PYTHONPATH=str(Path(__file__).parent))
    await started.ready()
    yield started, load(path, environ={})
    await started.kill_all()


async def test_they_cost_their_own_part_and_the_process_ends_at_sigterm(
    fleet: tuple[Fleet, Config],
) -> None:
    processes, config = fleet
    async with Client(config) as client:
        for n in range(20):  # more than all threads of the layer
            answer = await client.ask(
                "t", {"n": n}, timeout_ms=500 if n else 3_000, strategy="parallel"
            )
            found = {name: layer.status for name, layer in answer.layers.items()}
            assert found.pop("good") == "ok", answer
            assert set(found.values()) <= {"error", "timeout"}
            assert found["exits"] == found["thread"] == "error"
    assert await processes.stop() == {"coordinator": 0, "worker": 0}
