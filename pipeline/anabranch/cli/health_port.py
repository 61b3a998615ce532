"""`--health-port`: readiness and liveness for whoever starts and restarts processes.

GET /ready is 200 while the process does its work, 503 while it starts or drains. GET /live is 200
while the event loop turns, 503 when it has stood for too long: answered from a thread of its own,
which notices what the loop cannot.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

import msgspec

from anabranch.cli.common import note
from anabranch.errors import ConfigError

__all__ = ["Health", "answering"]

_HOST: Final = "127.0.0.1"
_BEAT_S: Final = 0.25
_STUCK_S: Final = 5.0


class Health:
    """What is asked for. `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.is_ready: Callable[[], bool] = _not_yet
        self.port = 0
        self._clock = clock
        self._turned_s = clock()

    def turned(self) -> None:
        """The loop has made a turn."""
        self._turned_s = self._clock()

    def reply(self, path: str) -> tuple[int, dict[str, object]]:
        """Status and body of a GET."""
        stood_s = self._clock() - self._turned_s
        if path == "/live":
            alive = stood_s < _STUCK_S
            return (200 if alive else 503), {"live": alive, "loop_stood_s": round(stood_s, 1)}
        if path == "/ready":
            ready = stood_s < _STUCK_S and self.is_ready()
            return (200 if ready else 503), {"ready": ready}
        return 404, {"error": "there are /live and /ready"}


@asynccontextmanager
async def answering(address: str | None) -> AsyncIterator[Health]:
    """Answer on an address while the block runs; without one, nobody asks.

    Args:
        address: a port of the loopback interface, or `host:port`; port 0 is any that is free.

    Raises:
        ConfigError: it is no address, or somebody else has it.
    """
    health = Health()
    if address is None:
        yield health
        return
    server = _bound(address, health)
    health.port = server.server_address[1]
    note(f"health on http://{server.server_address[0]!s}:{health.port}/ready and /live")
    thread = threading.Thread(target=server.serve_forever, name="health", daemon=True)
    thread.start()
    turning = asyncio.create_task(_turn(health), name="health")
    try:
        yield health
    finally:
        turning.cancel()
        await asyncio.to_thread(server.shutdown)
        server.server_close()


async def _turn(health: Health) -> None:
    while True:
        health.turned()
        await asyncio.sleep(_BEAT_S)


def _bound(address: str, health: Health) -> ThreadingHTTPServer:
    host, _, port = address.rpartition(":")
    if not port.isdigit() or int(port) > 65_535:
        raise ConfigError(
            f"--health-port {address}: write a port, 8080, or host:port, 0.0.0.0:8080"
        )

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the library's name for it
            status, body = health.reply(self.path)
            encoded = msgspec.json.encode(body)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)

        def log_message(self, format: str, *args: object) -> None:
            """Asked every few seconds: nothing to tell."""

    try:
        return ThreadingHTTPServer((host or _HOST, int(port)), Handler)
    except OSError as error:
        raise ConfigError(
            f"--health-port {address}: {error.strerror or error}; choose another, or 0 for any"
        ) from error


def _not_yet() -> bool:
    return False
