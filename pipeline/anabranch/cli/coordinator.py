"""`anabranch coordinator`: one coordinator, as a process."""

from __future__ import annotations

import asyncio

from anabranch.cli.common import COMMON, Common, collect_rarely, observe, out, serve
from anabranch.cli.health_port import answering
from anabranch.config.settings import Config
from anabranch.coordinator import Coordinator

__all__ = ["coordinator"]


def coordinator(*, health_port: str | None = None, common: Common = COMMON) -> int:
    """Run a coordinator until stopped; it shares the partitions with all others.

    Its topics must exist (`anabranch topics`). It prints `ready` when a worker of every
    configured group has announced itself. A first signal drains it, a second ends it at once.

    Parameters
    ----------
    health_port
        Answer GET /ready and /live there: a port, or host:port.
    """
    observe("anabranch-coordinator", debug=common.debug)
    return serve(_run(common.load(), health_port))


async def _run(config: Config, health_port: str | None) -> int:
    async with answering(health_port) as health, Coordinator(config) as running:
        health.state = lambda: running.state
        await running.ready()
        collect_rarely()
        out().print(f"ready {running.instance}")
        await asyncio.Event().wait()
    return 0
