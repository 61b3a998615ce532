"""`anabranch coordinator`: one coordinator, as a process."""

from __future__ import annotations

import asyncio

from anabranch.cli.common import COMMON, Common, observe, out, serve
from anabranch.config import Config
from anabranch.coordinator import Coordinator

__all__ = ["coordinator"]


def coordinator(*, common: Common = COMMON) -> int:
    """Run a coordinator until stopped; it shares the partitions with all others.

    Its topics must exist (`anabranch topics`). It prints `ready` when a worker of every
    configured group has announced itself. A first signal drains it, a second ends it at once.
    """
    observe("anabranch-coordinator")
    return serve(_run(common.load()))


async def _run(config: Config) -> int:
    async with Coordinator(config) as running:
        await running.ready()
        out().print(f"ready {running.instance}")
        await asyncio.Event().wait()
    return 0
