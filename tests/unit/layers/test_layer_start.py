"""A layer that does not start is one sentence, with file and key."""

from __future__ import annotations

import pytest

from anabranch.config.settings import Config
from anabranch.errors import AnabranchError, ConfigError, LayerError
from anabranch.layers.api import Item, LayerSpec, Request
from anabranch.testing import run
from anabranch.testing.memory import MemoryBroker
from anabranch.testing.virtual_time import VirtualClock
from anabranch.worker import Worker


class Broken:
    """Raises what it is told to."""

    name = "orders"

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def start(self) -> None:
        raise self._error

    async def ask(self, request: Request) -> list[Item]:
        return []


@pytest.mark.parametrize(
    ("raised", "kind", "text"),
    [
        (ValueError("no"), LayerError, "x.toml: layers.orders: start() failed with ValueError: no"),
        (ConfigError("dsn: write one"), ConfigError, "x.toml: layers.orders.dsn: write one"),
    ],
)
def test_it_is_named(raised: Exception, kind: type[AnabranchError], text: str) -> None:
    async def scenario() -> None:
        worker = Worker(
            Config(source="x.toml"),
            layers=[LayerSpec(Broken(raised))],
            transport=MemoryBroker().transport(),
            clock=VirtualClock(),
        )
        with pytest.raises(kind) as found:
            await worker.__aenter__()
        assert str(found.value) == text

    run(scenario())
