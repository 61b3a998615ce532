"""`anabranch worker`: one worker of one group, as a process."""

from __future__ import annotations

import asyncio

from anabranch.cli.common import COMMON, Common, collect_rarely, observe, out, serve
from anabranch.cli.health_port import answering
from anabranch.config.settings import Config
from anabranch.worker import Worker

__all__ = ["worker"]


def worker(
    *, group: str = "default", health_port: str | None = None, common: Common = COMMON
) -> int:
    """Run a worker until stopped; it shares its group's tasks with all others of the group.

    Its topics must exist (`anabranch topics`). It prints `ready` when its layers are announced.
    A first signal drains it, a second ends it at once.

    Parameters
    ----------
    group
        Serve the configured layers of this group.
    health_port
        Answer GET /ready and /live there: a port, or host:port.
    """
    observe("anabranch-worker", debug=common.debug)
    return serve(_run(common.load(), group, health_port))


async def _run(config: Config, group: str, health_port: str | None) -> int:
    async with answering(health_port) as health, Worker(config, group) as running:
        health.state = lambda: running.state
        await running.ready()
        collect_rarely()
        out().print(f"ready {running.instance}")
        await asyncio.Event().wait()
    return 0
