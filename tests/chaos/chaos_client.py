"""A client that asks until it is ended: python chaos_client.py CONFIG QUESTIONS"""

from __future__ import annotations

import asyncio
import itertools
import sys
from contextlib import suppress

from anabranch import Client
from anabranch.config.settings import load
from anabranch.errors import AnabranchError


async def run(path: str, questions: int) -> None:
    async with Client(load(path)) as client, asyncio.TaskGroup() as group:
        print("ready", flush=True)
        for n in itertools.count():
            group.create_task(_ask(client, n % questions))
            await asyncio.sleep(0.05)


async def _ask(client: Client, n: int) -> None:
    with suppress(AnabranchError):  # what it is told does not matter, what it asked does
        await client.ask("t", {"n": n}, timeout_ms=10_000)


asyncio.run(run(sys.argv[1], int(sys.argv[2])))
