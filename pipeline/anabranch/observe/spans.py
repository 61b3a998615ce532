"""One trace per query, from the producer's span to the answer.

Without an OpenTelemetry SDK, or for an unsampled query, the producer's context is forwarded as
it came and nothing is recorded: a few hundred nanoseconds a hop. Names and attributes follow
the semantic conventions for messaging, 1.44.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from opentelemetry import trace
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)
from opentelemetry.util.types import AttributeValue

from anabranch.contract.events import HEADER_TRACEPARENT, HEADER_TRACESTATE
from anabranch.kafka.transport import Headers, Record
from anabranch.runtime.containment import contained, ignore

__all__ = ["Trace", "Tracer"]

_SAMPLED: Final = 1
_WELL_FORMED: Final = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]*)?"
)
_TRACEPARENT_BYTES: Final = 55
"""Of version 00, exactly."""
MAX_TRACEPARENT_BYTES: Final = 128
"""Later versions may have more to say."""
MAX_TRACESTATE_BYTES: Final = 512
"""As W3C has it; a longer one is not forwarded."""

SYSTEM = {"messaging.system": "kafka"}


class Trace:
    """The context of one unit of work: headers to send on, and a span if it is sampled."""

    __slots__ = ("_span", "headers", "trace_id")

    def __init__(self, headers: Headers, trace_id: str | None, span: Span | None = None) -> None:
        self.headers = headers
        self.trace_id = trace_id
        self._span = span

    @property
    def is_recorded(self) -> bool:
        """Whether anybody will see names and attributes."""
        return self._span is not None

    def set(self, attributes: Mapping[str, AttributeValue]) -> None:
        """Add attributes, if anybody records them."""
        if self._span is not None:
            with contained(ignore):  # the application's own exporter may be among those told
                self._span.set_attributes(attributes)

    def end(self, error: str | None = None) -> None:
        """The work is over; `error` says what went wrong."""
        if self._span is None:
            return
        with contained(ignore):
            if error is not None:
                self._span.set_status(Status(StatusCode.ERROR, error))
            self._span.end()


class Tracer:
    """Starts spans as children of what a record's headers say."""

    def __init__(self) -> None:
        self._tracer = trace.get_tracer("anabranch")
        # The API's proxy provider records nothing and samples nothing: skip it altogether.
        self._active = not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)

    def process(self, record: Record, name: str) -> Trace:
        """A consumer span for a record, or only its context where nothing is recorded."""
        parent, state = _context_headers(record.headers)
        if not self._active or not _sampled(parent):
            headers = [] if parent is None else [(HEADER_TRACEPARENT, parent)]
            if state is not None:
                headers.append((HEADER_TRACESTATE, state))
            return Trace(headers, _trace_id(parent))
        return self._start(parent, state, name, SpanKind.CONSUMER, _record_attributes(record))

    def child(self, of: Trace, name: str, attributes: Mapping[str, AttributeValue]) -> Trace:
        """An internal span below another; the same context where nothing is recorded."""
        if of._span is None:
            return of
        parent, state = _context_headers(of.headers)
        return self._start(parent, state, name, SpanKind.INTERNAL, attributes)

    def _start(
        self,
        parent: bytes | None,
        state: bytes | None,
        name: str,
        kind: SpanKind,
        attributes: Mapping[str, AttributeValue],
    ) -> Trace:
        context = _remote(parent, state)
        span = self._tracer.start_span(
            name,
            context=trace.set_span_in_context(NonRecordingSpan(context)) if context else None,
            kind=kind,
            attributes=attributes,
        )
        mine = span.get_span_context()
        trace_id = format(mine.trace_id, "032x")
        return Trace(_headers_of(mine), trace_id, span if span.is_recording() else None)


def _record_attributes(record: Record) -> dict[str, AttributeValue]:
    return {
        **SYSTEM,
        "messaging.operation.type": "process",
        "messaging.destination.name": record.topic,
        "messaging.destination.partition.id": str(record.partition),
        "messaging.kafka.offset": record.offset,
    }


def _context_headers(headers: Headers) -> tuple[bytes | None, bytes | None]:
    """What is forwarded of a producer's context; none that is malformed, as W3C demands."""
    parent = state = None
    for name, value in headers:
        if name == HEADER_TRACEPARENT:
            parent = value
        elif name == HEADER_TRACESTATE:
            state = value
    if parent is None or not _is_well_formed(parent):
        return None, None
    return parent, state if state and _is_forwarded(state) else None


def _is_well_formed(parent: bytes) -> bool:
    most = _TRACEPARENT_BYTES if parent.startswith(b"00") else MAX_TRACEPARENT_BYTES
    return len(parent) <= most and _WELL_FORMED.fullmatch(parent) is not None


def _is_forwarded(state: bytes) -> bool:
    return len(state) <= MAX_TRACESTATE_BYTES and state.isascii()


def _sampled(traceparent: bytes | None) -> bool:
    """Whether to record: the parent's decision (mask bit 0), or our own if there is none."""
    return traceparent is None or bool(int(traceparent[53:55], 16) & _SAMPLED)


def _trace_id(traceparent: bytes | None) -> str | None:
    return traceparent[3:35].decode() if traceparent else None


def _remote(parent: bytes | None, state: bytes | None) -> SpanContext | None:
    """The producer's context, if it is well formed."""
    if parent is None:
        return None
    trace_id, span_id, flags = (int(part, 16) for part in parent.split(b"-")[1:4])
    return SpanContext(trace_id, span_id, True, TraceFlags(flags), _state(state))


def _state(state: bytes | None) -> TraceState | None:
    return TraceState.from_header([state.decode("ascii", "replace")]) if state else None


def _headers_of(context: SpanContext) -> Sequence[tuple[str, bytes]]:
    flags = int(context.trace_flags)
    parent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{flags:02x}"
    headers = [(HEADER_TRACEPARENT, parent.encode())]
    state = context.trace_state.to_header().encode() if context.trace_state else b""
    if state and _is_forwarded(state):
        headers.append((HEADER_TRACESTATE, state))
    return headers
