"""Layers that hang in threads, or want to end the process that they run in."""

from __future__ import annotations

import asyncio
import sys
import threading

from anabranch.layers.api import Item, Request


class Hangs:
    """`plugin = "hanging_layers:Hangs"`: blocking, and never back."""

    def __init__(self, name: str) -> None:
        self.name = name

    def ask(self, request: Request) -> list[Item]:
        threading.Event().wait()
        raise AssertionError

    async def stop(self) -> None:
        await asyncio.Event().wait()


class HangsInThePool:
    """Async, and hangs in the loop's own pool."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def ask(self, request: Request) -> list[Item]:
        await asyncio.to_thread(threading.Event().wait)
        raise AssertionError


class Exits:
    """Calls what ends a program."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def ask(self, request: Request) -> list[Item]:
        sys.exit("usage: ...")

    async def stop(self) -> None:
        sys.exit(3)


class ExitsInAThread(Exits):
    """The same, blocking."""

    def ask(self, request: Request) -> list[Item]:  # type: ignore[override]
        raise KeyboardInterrupt


class Answers:
    """Blocking, and back at once."""

    def __init__(self, name: str) -> None:
        self.name = name

    def ask(self, request: Request) -> list[Item]:
        return [Item(f"urn:{self.name}", 1.0)]
