"""A layer that ends its whole process on one question."""

from __future__ import annotations

import os

from anabranch.layers.api import Item, Request


class Deadly:
    """`plugin = "deadly:Deadly"`."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def ask(self, request: Request) -> list[Item]:
        if "poison" in request.params:
            os._exit(70)
        return [Item(f"urn:{self.name}", 1.0)]
