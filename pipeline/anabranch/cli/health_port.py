"""`--health-port`: readiness and liveness for whoever starts and restarts processes.

GET /ready is 200 while the process does its work, 503 while it starts or drains. GET /live is 200
while the event loop turns, 503 when it has stood for too long: answered from a thread of its own,
which notices what the loop cannot, and logs where it stands.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import msgspec

from anabranch.cli.common import note
from anabranch.errors import ConfigError
from anabranch.runtime.supervisor import State

__all__ = ["Health", "answering"]

log = logging.getLogger(__name__)

_HOST: Final = "127.0.0.1"
_MOST: Final = 16
"""Connections at a time; one more closes the oldest: who asks and goes is always served."""
_REQUEST_S: Final = 5.0
"""For a whole request, however it trickles in."""
_BEAT_S: Final = 0.25
_STUCK_S: Final = 5.0


class Health:
    """What is asked for. Made in the loop's thread; `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.state: Callable[[], State] = _starting
        self.port = 0
        self._clock = clock
        self._turned_s = clock()
        self._tasks = 0
        self._thread = threading.get_ident()
        self._told_s = 0.0
        """The turn after which the loop was last found standing."""

    def turned(self, tasks: int = 0) -> None:
        """The loop has made a turn, with so many tasks in it."""
        self._turned_s, self._tasks = self._clock(), tasks

    def reply(self, path: str) -> tuple[int, dict[str, object]]:
        """Status and body of a GET."""
        stood_s = self._clock() - self._turned_s
        alive = stood_s < _STUCK_S
        if not alive:
            self._tell(stood_s)
        if path == "/live":
            found: dict[str, object] = {
                "live": alive,
                "loop_stood_s": round(stood_s, 1),
                "tasks": self._tasks,
            }
            return (200 if alive else 503), found
        if path == "/ready":
            state = self.state() if alive else "stuck"
            return (200 if state == "ready" else 503), {"ready": state == "ready", "state": state}
        return 404, {"error": "there are /live and /ready"}

    def _tell(self, stood_s: float) -> None:
        """Say once where the loop stands: whoever restarts us takes that knowledge away."""
        if self._told_s == self._turned_s:
            return
        self._told_s = self._turned_s
        frame = sys._current_frames().get(self._thread)
        stack = "".join(traceback.format_stack(frame)) if frame else ""
        log.error("the event loop has stood for %.1f s, here:\n%s", stood_s, stack)


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


class _Server(ThreadingHTTPServer):
    """A thread a connection, so many at most, each for so long at most."""

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._begun_s: dict[socket.socket, float] = {}
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        open_now = list(self._begun_s)
        if len(open_now) >= _MOST:
            _hang_up(open_now[0])
            self._begun_s.pop(open_now[0], None)
        self._begun_s[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._begun_s.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Called by the library twice a second."""
        late_s = time.monotonic() - _REQUEST_S
        for request, begun_s in list(self._begun_s.items()):
            if begun_s < late_s:
                _hang_up(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever hung up, or was hung up on, is nothing to tell of."""
        log.debug("a health request of %s ended early", client_address, exc_info=True)


def _hang_up(request: socket.socket) -> None:
    """Ends the wait of the thread that reads from it, which then closes it."""
    with suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)


async def _turn(health: Health) -> None:
    while True:
        health.turned(len(asyncio.all_tasks()))
        await asyncio.sleep(_BEAT_S)


def _bound(address: str, health: Health) -> _Server:
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
        return _Server((host or _HOST, int(port)), Handler)
    except OSError as error:
        raise ConfigError(
            f"--health-port {address}: {error.strerror or error}; choose another, or 0 for any"
        ) from error


def _starting() -> State:
    return "starting"
