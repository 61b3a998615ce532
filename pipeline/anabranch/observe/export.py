"""Export of traces from our own processes, where OTEL_* says so.

An application that embeds Anabranch sets up OpenTelemetry itself, or not at all.
"""

from __future__ import annotations

import os
from typing import Final

from opentelemetry import trace
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

__all__ = ["export_traces"]

QUEUE_SPANS: Final = 32_768
"""The SDK's 2,048 lose half of a burst of 30,000 spans; this loses none."""
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


def export_traces(service: str) -> None:
    """Send this process's spans to the collector that the environment names, if it names one.

    The SDK and the exporter read the other variables of the specification themselves.
    `service` is the process's name where OTEL_SERVICE_NAME gives none.
    """
    environ = os.environ
    off = environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if off or environ.get("OTEL_TRACES_EXPORTER") == "none" or not _first(_ENDPOINTS):
        return
    resource = Resource.create({SERVICE_NAME: environ.get("OTEL_SERVICE_NAME") or service})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(_exporter(), max_queue_size=QUEUE_SPANS))
    trace.set_tracer_provider(provider)


def _exporter() -> SpanExporter:
    if _first(_PROTOCOLS) == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as Grpc

        return Grpc()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as Http

    return Http()


def _first(names: tuple[str, ...]) -> str | None:
    return next((os.environ[name] for name in names if os.environ.get(name)), None)
