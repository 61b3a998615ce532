"""Traces leave our own processes exactly where the environment says so."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

SEND_ONE_SPAN = """
from opentelemetry import trace
from anabranch.observe.export import export_traces
export_traces("the-service")
trace.get_tracer("t").start_span("the-span").end()
"""


class Collector(ThreadingHTTPServer):
    """Keeps the bodies that are posted to it, by path."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receiver)
        self.received: list[tuple[str, bytes]] = []


class Receiver(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.path, body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def send(collector: Collector, **variables: str) -> list[tuple[str, bytes]]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("OTEL_")}
    where = f"http://127.0.0.1:{collector.server_port}"
    environment = clean | {name: text.replace("HERE", where) for name, text in variables.items()}
    subprocess.run([sys.executable, "-c", SEND_ONE_SPAN], env=environment, check=True)
    return collector.received


def test_spans_go_to_the_endpoint_under_the_process_name(collector: Collector) -> None:
    ((path, body),) = send(collector, OTEL_EXPORTER_OTLP_ENDPOINT="HERE")
    assert path == "/v1/traces"
    assert b"the-span" in body
    assert b"the-service" in body


def test_a_configured_service_name_wins(collector: Collector) -> None:
    ((_, body),) = send(
        collector, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="HERE/t", OTEL_SERVICE_NAME="another"
    )
    assert b"another" in body
    assert b"the-service" not in body


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "HERE", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "HERE", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_nothing_is_sent_unasked(variables: dict[str, str], collector: Collector) -> None:
    assert send(collector, **variables) == []
