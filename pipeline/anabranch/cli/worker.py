"""`anabranch worker`: one worker of one group, as a process."""

from __future__ import annotations

import asyncio

from anabranch.cli.common import COMMON, Common, observe, out, serve
from anabranch.config import Config
from anabranch.worker import Worker

__all__ = ["worker"]


def worker(*, group: str = "default", common: Common = COMMON) -> int:
    """Run a worker until stopped; it shares its group's tasks with all others of the group.

    Its topics must exist (`anabranch topics`). It prints `ready` when its layers are announced.
    A first signal drains it, a second ends it at once.

    Parameters
    ----------
    group
        Serve the configured layers of this group.
    """
    observe("anabranch-worker")
    return serve(_run(common.load(), group))


async def _run(config: Config, group: str) -> int:
    async with Worker(config, group) as running:
        await running.ready()
        out().print(f"ready {running.instance}")
        await asyncio.Event().wait()
    return 0
