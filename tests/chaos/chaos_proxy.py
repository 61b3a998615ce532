"""Between clients and a node of Kafka: passes on, late, not at all, or not for somebody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from anabranch.dev.local_kafka import HOST, Node

__all__ = ["Network", "proxied"]

_CHUNK_BYTES = 65_536


class Network:
    """What holds between all clients and nodes.

    Attributes:
        delay_s: of every chunk, in both directions.
    """

    def __init__(self) -> None:
        self.delay_s = 0.0
        self._silent: set[str] = set()
        """Instances whose connections stay open and carry nothing."""
        self._speaks = asyncio.Event()
        self._links: dict[asyncio.Task[None], int] = {}

    def silence(self, instance: str) -> None:
        """Nothing that this instance sends or is sent gets through."""
        self._silent.add(instance)

    def let_speak(self, instance: str) -> None:
        """It goes on where it stopped."""
        self._silent.discard(instance)
        self._speaks.set()
        self._speaks = asyncio.Event()

    def cut(self, numbers: Collection[int]) -> None:
        """Break all connections with these nodes."""
        for link, number in list(self._links.items()):
            if number in numbers:
                link.cancel()

    async def serve(self, node: Node) -> asyncio.Server:
        """Listen where a node's clients are sent to."""

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._links[task] = node.number
            try:
                with suppress(OSError, asyncio.CancelledError):
                    await self._link(node, reader, writer)
            finally:
                del self._links[task]
                writer.transport.abort()

        host, port = node.address.split(":")
        return await asyncio.start_server(connected, host, int(port))

    async def _link(
        self, node: Node, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        first = await reader.read(_CHUNK_BYTES)
        up_reader, up_writer = await asyncio.open_connection(HOST, node.client_port)
        try:
            client = _client_id(first)
            up_writer.write(first)
            both = [
                asyncio.ensure_future(self._pass_on(client, *ends))
                for ends in ((reader, up_writer), (up_reader, writer))
            ]
            try:
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for each in both:
                    each.cancel()
                await asyncio.gather(*both, return_exceptions=True)
        finally:
            up_writer.transport.abort()

    async def _pass_on(
        self, client: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while chunk := await reader.read(_CHUNK_BYTES):
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            while any(f"{client}-".startswith(f"{name}-") for name in self._silent):
                await self._speaks.wait()
            writer.write(chunk)
            await writer.drain()


@asynccontextmanager
async def proxied(nodes: Collection[Node]) -> AsyncIterator[Network]:
    """A network in front of these nodes."""
    network = Network()
    async with AsyncExitStack() as stack:
        for node in nodes:
            await stack.enter_async_context(await network.serve(node))
        yield network
        network.cut([node.number for node in nodes])


def _client_id(request: bytes) -> str:
    """Of a Kafka request: size, key, version, correlation id, then the client's id."""
    length = int.from_bytes(request[12:14], signed=True)
    return request[14 : 14 + max(0, length)].decode(errors="replace")
