"""Every number finite, every name and list of bounded length, and nothing folded overflows."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anabranch.contract.bounds import MAX_INT, MAX_SPAN_MS, clamped_ms
from anabranch.contract.codec import decode, decode_health, encode
from anabranch.contract.events import LayerDescriptor, MemberHealth, Partial, PartialResult, Query
from anabranch.contract.rows import LayerSum, PlanSum, QuerySum, Rows
from anabranch.contract.telemetry import ExecutionTelemetry, LayerOutcome, TelemetryBatch
from anabranch.errors import DecodeError
from anabranch.learn.analytics import Analytics
from anabranch.learn.cost_model import CostModel
from anabranch.learn.dependency_graph import DependencyGraph
from anabranch.learn.execution_telemetry import ExecutionTelemetryCollector
from anabranch.learn.folding import teach
from anabranch.learn.profiler import LayerProfiler
from anabranch.learn.summary import sum_up
from anabranch.schemas.generate import EVENTS, generate

Json = dict[str, Any]

HUGE = "1" + "0" * 309


def rules(node: Any, path: str) -> Iterator[tuple[str, Json]]:
    """Every rule of a schema that is about a value, with where it stands."""
    if isinstance(node, list):
        for child in node:
            yield from rules(child, path)
    elif isinstance(node, dict):
        yield path, node
        for key, child in node.items():
            if key == "properties":
                for name, field in child.items():
                    yield from rules(field, f"{path}.{name}")
            elif key in ("items", "anyOf", "additionalProperties"):
                yield from rules(child, f"{path}.{key}" if key != "anyOf" else path)


def unbounded(path: str, rule: Json) -> str | None:
    """What is missing of a rule's bounds."""
    kind = rule.get("type")
    if "enum" in rule or "const" in rule:
        return None
    if kind in ("integer", "number"):
        keys = [{"minimum", "exclusiveMinimum"}, {"maximum", "exclusiveMaximum"}]
        return None if all(key & rule.keys() for key in keys) else "a number"
    if kind == "string":
        return None if rule.keys() & {"maxLength", "pattern"} else "a string"
    if kind == "array":
        return None if "maxItems" in rule else "a list"
    return None


WITHIN_A_RECORD = {
    "Answer.id", "Answer.items", "Answer.missing", "Answer.reason", "Answer.trace_id",
    "Error.message",
}  # fmt: skip
"""What only coordinators write, out of what is bounded; the record's size bounds it."""


@pytest.mark.parametrize("name", EVENTS)
def test_every_number_string_and_list_of_an_event_has_a_bound(name: str) -> None:
    definitions = json.loads(generate()[f"{name}.json"])["$defs"]
    found = {
        f"{path}: {missing}"
        for kind, schema in definitions.items()
        for path, rule in rules(schema, kind)
        if (missing := unbounded(path, rule)) and path not in WITHIN_A_RECORD
    }
    assert not found


PARTIAL = encode(
    Partial("q", 1, "t", "", 20, "k", 0, "w", [PartialResult("graph", took_ms=7.5, ttl_ms=9)])
).decode()
DESCRIPTOR = encode(LayerDescriptor("graph", "io", ttl_ms=9, weight=7.5)).decode()
MEMBER = encode(
    MemberHealth("w", "worker", "ready", "io", queued=9, stats={"queue_ms": 7.5})
).decode()


@pytest.mark.parametrize("value", [HUGE, f"-{HUGE}", "1e306", "-1", "1e400", str(2 * MAX_INT)])
@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('{"id": "q", "type": "t", "max_age_ms": 9}', Query),
        ('{"id": "q", "type": "t", "timeout_ms": 9}', Query),
        (PARTIAL, Partial),
        (PARTIAL.replace("9", "8").replace("7.5", "9"), Partial),
        (DESCRIPTOR, LayerDescriptor),
        (DESCRIPTOR.replace("9", "8").replace("7.5", "9"), LayerDescriptor),
        (MEMBER, MemberHealth),
        ('{"instance": "c", "sequence": 9}', TelemetryBatch),
        (
            '{"instance": "c", "sequence": 1, "rows": {"queries": [{"bucket": 1, "type": "t", '
            '"strategy": "parallel", "layers": [], "count": 9}]}}',
            TelemetryBatch,
        ),
    ],
)
def test_what_is_out_of_bounds_is_refused_as_such(text: str, kind: type, value: str) -> None:
    assert decode(text.encode(), kind)
    with pytest.raises(DecodeError):
        decode(text.replace("9", value).encode(), kind)


@pytest.mark.parametrize("group", ["", "a b", "a/b", "ä", "x" * 65, "io\n"])
def test_a_group_that_can_be_part_of_no_topics_name_is_refused(group: str) -> None:
    with pytest.raises(DecodeError):
        decode_health(encode(LayerDescriptor("graph", group)))


@pytest.mark.parametrize(
    ("span_ms", "counted_ms"),
    [(5.0, 5.0), (-1.0, 0.0), (math.nan, 0.0), (math.inf, MAX_SPAN_MS), (1e300, MAX_SPAN_MS)],
)
def test_a_span_is_clamped(span_ms: float, counted_ms: float) -> None:
    assert clamped_ms(span_ms) == counted_ms


counts = st.sampled_from([0, 1, 7, 10**9, MAX_INT])
signed = st.sampled_from([-MAX_INT, -1, 0, 1, MAX_INT])
arms = st.sampled_from(["sequential", "parallel", "distributed"])
LAYERS = ("graph", "semantic")

rows = st.builds(
    Rows,
    st.lists(
        st.builds(LayerSum, counts, st.just("t"), arms, st.sampled_from(LAYERS), *[counts] * 8),
        max_size=4,
    ).map(tuple),
    st.lists(
        st.builds(
            PlanSum, counts, st.just("t"), arms, st.just(LAYERS), counts, st.booleans(),
            counts, signed, counts, counts,
        ),
        max_size=4,
    ).map(tuple),
    st.lists(
        st.builds(
            QuerySum, counts, st.just("t"), arms, st.just(LAYERS), *[counts] * 8, signed
        ),
        max_size=4,
    ).map(tuple),
)  # fmt: skip


def finite(node: Any) -> bool:
    if isinstance(node, dict):
        return all(map(finite, node.values()))
    if isinstance(node, list | tuple):
        return all(map(finite, node))
    return not isinstance(node, float) or math.isfinite(node)


@settings(max_examples=150, deadline=None)
@given(st.lists(rows, min_size=1, max_size=3))
def test_what_the_schema_lets_pass_teaches_nothing_infinite(several: list[Rows]) -> None:
    profiler = LayerProfiler()
    graph, costs = DependencyGraph(profiler), CostModel()
    collector = ExecutionTelemetryCollector("me", (profiler, graph, costs))
    for sequence, taught in enumerate(several):
        batch = decode(encode(TelemetryBatch("other", sequence, taught)), TelemetryBatch)
        assert collector.fold(batch)
    part = costs.part("io", "parallel", LAYERS, [profiler.latency_ms("graph")] * 2, 5.0, False)
    learned = [
        collector.get_decision_accuracy(),
        collector.get_strategy_effectiveness(),
        collector.get_query_type_insights(),
        collector.get_performance_trend(),
        [float(risk) for risk in map(costs.risk, ("sequential", "parallel", "distributed"))],
        [profiler.latency_ms(layer) for layer in (*LAYERS, "unknown")],
        [profiler.success_rate("graph"), profiler.result_count("graph")],
        graph.get_parallelization_benefit(LAYERS),
        part.formula_ms,
        part.estimated_ms,
    ]
    assert finite(learned)
    assert part.estimated_ms <= MAX_SPAN_MS
    assert all(recommended for recommended in collector.get_strategy_recommendations())
    assert finite(dict(graph.stats()))


@pytest.mark.parametrize("absurd", [math.nan, math.inf, -math.inf, 1e306, -5.0, float(MAX_INT)])
def test_an_absurd_span_of_one_answer_is_summed_as_thirty_days_at_most(absurd: float) -> None:
    record = ExecutionTelemetry(
        query="q",
        type="t",
        at_ms=5_000,
        strategy_chosen="parallel",
        strategy_confidence=0.5,
        estimated_latency_ms=absurd,
        total_latency_ms=absurd,
        estimation_error_pct=0.0,
        cache_hit=False,
        success=True,
        layers=(LayerOutcome("graph", "parallel", "ok", absurd, absurd, absurd),),
        queue_wait_ms=absurd,
        shadow="sequential",
        shadow_ms=absurd,
    )
    summed = sum_up([record])
    assert 0 <= summed.queries[0].total_us <= MAX_SPAN_MS * 1_000
    assert 0 <= summed.queries[0].queue_us <= MAX_SPAN_MS * 1_000
    analytics = Analytics()
    teach(summed, [analytics])
    assert finite(analytics.types())
