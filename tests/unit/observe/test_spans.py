"""Traces: who is whose parent, and what is forwarded where nobody records."""

from __future__ import annotations

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanContext, SpanKind, StatusCode
from records import FakeRecord

from anabranch.kafka.transport import Headers
from anabranch.observe.spans import Tracer

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{SPAN}-01".encode()
UNSAMPLED = f"00-{TRACE}-{SPAN}-00".encode()
MALFORMED = [
    b"",
    b"nonsense",
    b"00-00-00",
    b"nonsense ending in 00",
    f"00-{'0' * 32}-{SPAN}-01".encode(),
    f"00-{TRACE}-{'0' * 16}-00".encode(),
    f"00-{TRACE[:-2]}-{SPAN}-00".encode(),
    f"ff-{TRACE}-{SPAN}-00".encode(),
    f"00-{TRACE.upper()}-{SPAN}-00".encode(),
    b"\xff\xfe\x00",
]


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """An SDK that keeps every finished span."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    return exporter


@pytest.fixture
def unrecorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """No SDK, whatever other tests have set up."""
    monkeypatch.setattr(trace, "get_tracer_provider", trace.ProxyTracerProvider)


def carrying(topic: str, headers: Headers) -> FakeRecord:
    return FakeRecord(b"{}", 7, 2, topic, headers=tuple(headers))


def ended(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def context(span: ReadableSpan | SpanContext) -> tuple[int, int]:
    found = span if isinstance(span, SpanContext) else span.get_span_context()
    return found.trace_id, found.span_id


def parent(span: ReadableSpan) -> tuple[int, int]:
    assert span.parent is not None
    return context(span.parent)


def test_query_task_and_layer_spans_hang_below_each_other(recorded: InMemorySpanExporter) -> None:
    tracer = Tracer()
    query = tracer.process(carrying("queries", [("traceparent", SAMPLED)]), "process queries")
    task = tracer.process(carrying("tasks", query.headers), "process tasks")
    layer = tracer.child(task, "layer a", {"anabranch.layer": "a"})
    for each in (layer, task, query):
        each.end()
    spans = ended(recorded)
    assert parent(spans["process queries"]) == (int(TRACE, 16), int(SPAN, 16))
    assert parent(spans["process tasks"]) == context(spans["process queries"])
    assert parent(spans["layer a"]) == context(spans["process tasks"])
    assert spans["process tasks"].kind is SpanKind.CONSUMER
    assert spans["layer a"].kind is SpanKind.INTERNAL
    assert query.trace_id == task.trace_id == TRACE


def test_what_is_sent_below_the_answer_belongs_to_the_query(recorded: InMemorySpanExporter) -> None:
    tracer = Tracer()
    query = tracer.process(carrying("queries", [("traceparent", SAMPLED)]), "process queries")
    read = tracer.process(carrying("results", query.headers), "process results")
    read.end()
    query.end()
    spans = ended(recorded)
    assert parent(spans["process results"]) == context(spans["process queries"])


def test_a_query_without_a_context_starts_a_trace(recorded: InMemorySpanExporter) -> None:
    query = Tracer().process(carrying("queries", []), "process queries")
    query.end()
    span = ended(recorded)["process queries"]
    assert span.parent is None
    assert query.trace_id == format(context(span)[0], "032x")


@pytest.mark.parametrize("malformed", MALFORMED)
def test_a_malformed_context_starts_anew(recorded: InMemorySpanExporter, malformed: bytes) -> None:
    query = Tracer().process(carrying("queries", [("traceparent", malformed)]), "process queries")
    query.end()
    assert ended(recorded)["process queries"].parent is None
    assert dict(query.headers)["traceparent"] != malformed


def test_headers_are_replaced_and_never_appended(recorded: InMemorySpanExporter) -> None:
    came = [("traceparent", SAMPLED), ("tracestate", b"vendor=1"), ("other", b"x")]
    query = Tracer().process(carrying("queries", came), "process queries")
    names = [name for name, _ in query.headers]
    assert names == ["traceparent", "tracestate"]
    assert dict(query.headers)["traceparent"] != SAMPLED
    assert dict(query.headers)["tracestate"] == b"vendor=1"


def test_an_unsampled_context_is_forwarded_untouched(recorded: InMemorySpanExporter) -> None:
    tracer = Tracer()
    came = [("traceparent", UNSAMPLED), ("tracestate", b"vendor=1")]
    query = tracer.process(carrying("queries", came), "process queries")
    layer = tracer.child(query, "layer a", {})
    layer.end()
    query.end("wrong")
    assert list(query.headers) == list(layer.headers) == came
    assert query.trace_id == TRACE
    assert not recorded.get_finished_spans()


@pytest.mark.usefixtures("unrecorded")
def test_without_an_sdk_a_sampled_context_is_forwarded_untouched() -> None:
    tracer = Tracer()
    came = [("traceparent", SAMPLED), ("tracestate", b"vendor=1")]
    query = tracer.process(carrying("queries", came), "process queries")
    assert list(tracer.child(query, "layer a", {}).headers) == list(query.headers) == came
    assert query.trace_id == TRACE


def test_what_the_sampler_leaves_out_has_no_spans_below_it(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = TracerProvider(sampler=ALWAYS_OFF)
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    tracer = Tracer()
    begun = tracer.process(carrying("queries", []), "process queries")
    assert not begun.is_recorded
    assert tracer.child(begun, "layer a", {}) is begun
    ((name, value),) = begun.headers
    assert name == "traceparent"
    assert value.startswith(f"00-{begun.trace_id}-".encode())
    assert not int(value[-2:], 16) & 1


def test_an_error_and_late_attributes_stand_in_the_span(recorded: InMemorySpanExporter) -> None:
    query = Tracer().process(carrying("queries", []), "process queries")
    query.set({"anabranch.strategy": "cache"})
    query.end("no such type")
    span = ended(recorded)["process queries"]
    assert span.attributes is not None
    assert span.attributes["anabranch.strategy"] == "cache"
    assert span.attributes["messaging.kafka.offset"] == 7
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "no such type")


HUGE = b"x" * 4_000_000


@pytest.mark.parametrize(
    ("given", "forwarded"),
    [
        ([("traceparent", UNSAMPLED + HUGE)], ()),
        ([("traceparent", UNSAMPLED + b"-more")], ()),
        ([("traceparent", b"01" + UNSAMPLED[2:] + b"-more")], ("traceparent",)),
        ([("traceparent", b"01" + UNSAMPLED[2:] + b"-" + HUGE)], ()),
        ([("traceparent", UNSAMPLED), ("tracestate", b"a=" + b"1" * 510)], "both"),
        ([("traceparent", UNSAMPLED), ("tracestate", b"a=" + b"1" * 511)], ("traceparent",)),
        ([("traceparent", UNSAMPLED), ("tracestate", b"a=\xff")], ("traceparent",)),
        ([("traceparent", None), ("tracestate", None)], ()),
        ([("tracestate", b"a=1")], ()),
        ([("traceparent", UNSAMPLED)] * 1_000, ("traceparent",)),
    ],
)
def test_what_is_forwarded_of_a_foreign_context_is_bounded(
    unrecorded: None, given: list[tuple[str, bytes]], forwarded: tuple[str, ...]
) -> None:
    trace = Tracer().process(carrying("queries", given), "process queries")
    names = ("traceparent", "tracestate") if forwarded == "both" else forwarded
    assert tuple(name for name, _ in trace.headers) == names
    assert sum(len(value) for _, value in trace.headers) <= 128 + 512


def test_a_long_state_does_not_come_out_of_a_recorded_span_either(
    recorded: InMemorySpanExporter,
) -> None:
    given = [("traceparent", SAMPLED), ("tracestate", b"a=" + HUGE)]
    query = Tracer().process(carrying("queries", given), "process queries")
    assert [name for name, _ in query.headers] == ["traceparent"]
    query.end()


def test_an_exporter_that_raises_costs_no_query(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = TracerProvider()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    query = Tracer().process(carrying("queries", [("traceparent", SAMPLED)]), "process queries")

    def fail(*args: object) -> None:
        raise RuntimeError("why")

    monkeypatch.setattr(type(query._span), "end", fail)
    monkeypatch.setattr(type(query._span), "set_attributes", fail)
    query.set({"a": 1})
    query.end("error")
