"""Readiness and liveness over HTTP."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import urllib.error
import urllib.request
from contextlib import suppress

import pytest

from anabranch.cli import health_port
from anabranch.cli.health_port import Health, answering
from anabranch.errors import ConfigError
from anabranch.runtime.supervisor import until


async def get(health: Health, path: str) -> tuple[int, dict[str, object]]:
    def ask() -> tuple[int, dict[str, object]]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{health.port}{path}", timeout=10) as got:
                return got.status, json.load(got)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    return await asyncio.to_thread(ask)


async def test_a_process_is_live_at_once_and_ready_when_it_says_so() -> None:
    async with answering("0") as health:
        assert (await get(health, "/live"))[0] == 200
        assert await get(health, "/ready") == (503, {"ready": False, "state": "starting"})
        health.state = lambda: "ready"
        assert await get(health, "/ready") == (200, {"ready": True, "state": "ready"})
        health.state = lambda: "draining"
        assert await get(health, "/ready") == (503, {"ready": False, "state": "draining"})
        assert (await get(health, "/live"))[0] == 200
        assert (await get(health, "/other"))[0] == 404


def test_a_loop_that_stands_is_neither_live_nor_ready_and_its_stack_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now_s = 100.0
    health = Health(lambda: now_s)
    health.state = lambda: "ready"
    health.turned()
    assert health.reply("/live")[0] == health.reply("/ready")[0] == 200
    now_s += 6.0
    for _ in range(2):
        assert health.reply("/live") == (503, {"live": False, "loop_stood_s": 6.0, "tasks": 0})
    assert health.reply("/ready") == (503, {"ready": False, "state": "stuck"})
    (told,) = caplog.messages
    assert "stood for 6.0 s" in told
    assert "test_health_port.py" in told, "it says where"
    health.turned(3)
    assert health.reply("/live") == (200, {"live": True, "loop_stood_s": 0.0, "tasks": 3})


@pytest.mark.parametrize("address", ["", "x", "127.0.0.1:", "8080x", "70000"])
async def test_what_is_no_address_is_said(address: str) -> None:
    with pytest.raises(ConfigError, match="--health-port"):
        async with answering(address):
            pass


async def test_an_address_that_is_taken_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match="choose another"):
            async with answering(f"127.0.0.1:{port}"):
                pass


async def test_idle_and_trickling_connections_keep_nobody_from_asking() -> None:
    async with answering("0") as health:
        before = threading.active_count()
        held = [socket.create_connection(("127.0.0.1", health.port)) for _ in range(100)]
        for connection in held[::2]:
            with suppress(OSError):
                connection.sendall(b"GET /live HTTP/1.1\r\nX-")
        assert (await get(health, "/live"))[0] == 200
        await until(lambda: threading.active_count() <= before + 16 + 4)
        for connection in held:
            connection.close()


async def test_a_request_that_does_not_end_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_port, "_REQUEST_S", 0.2)
    async with answering("0") as health:
        reader, writer = await asyncio.open_connection("127.0.0.1", health.port)
        writer.write(b"GET /live HTTP/1.1\r\nX-")
        async with asyncio.timeout(20):
            assert await reader.read() == b""
        writer.close()
