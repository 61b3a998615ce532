"""Names that somebody invents: they cost no memory and push out nothing that was learned."""

from __future__ import annotations

import random

import pytest
from lessons import outcome, record

from anabranch.contract.codec import MAX_VALUE_BYTES, encode
from anabranch.contract.rows import LayerSum, PlanSum, QuerySum, Rows
from anabranch.contract.telemetry import TelemetryBatch
from anabranch.learn.decayed_sums import Cells
from anabranch.learn.dependency_graph import MAX_SETS, DependencyGraph
from anabranch.learn.execution_telemetry import MAX_ROWS, ExecutionTelemetryCollector
from anabranch.learn.folding import fitting, heaviest
from anabranch.learn.name_filter import MAX_FOREIGN_TYPES, OTHER, NameFilter
from anabranch.learn.profiler import LayerProfiler

ANNOUNCED = {"a", "b"}


@pytest.fixture
def names() -> NameFilter:
    return NameFilter({"factual"}, lambda: ANNOUNCED)


class TestNameFilter:
    def test_a_query_for_real_layers_of_a_configured_type_is_learned_as_it_is(
        self, names: NameFilter
    ) -> None:
        answered = record({"a": 30.0, "b": 40.0})
        assert names.record(answered) is answered

    def test_layers_that_nobody_announced_are_left_out(self, names: NameFilter) -> None:
        layers = [outcome("a"), outcome("invented", "none", status="skipped")]
        answered = names.record(record({"a": 30.0}, layers_override=layers))
        assert [layer.layer for layer in answered.layers] == ["a"]

    def test_types_that_nobody_configured_are_told_apart_up_to_a_few(
        self, names: NameFilter
    ) -> None:
        told_apart = [names.type(f"t{n}") for n in range(1_000)]
        assert told_apart[:MAX_FOREIGN_TYPES] == [f"t{n}" for n in range(MAX_FOREIGN_TYPES)]
        assert set(told_apart[MAX_FOREIGN_TYPES:]) == {OTHER}
        assert names.type("factual") == "factual"
        assert names.type("t1") == "t1"

    def test_what_others_say_of_such_names_is_not_learned_either(self, names: NameFilter) -> None:
        rows = names.rows(
            Rows(
                (LayerSum(1, "t", "parallel", "a"), LayerSum(1, "t", "parallel", "x")),
                (
                    PlanSum(1, "t", "parallel", ("a", "b"), 0, False),
                    PlanSum(1, "t", "parallel", ("a", "x"), 0, False),
                ),
                (QuerySum(1, "t", "parallel", ("a", "x"), 5),),
            )
        )
        assert [row.layer for row in rows.layers] == ["a"]
        assert [row.layers for row in rows.plans] == [("a", "b")]
        assert [(row.layers, row.count) for row in rows.queries] == [(("a",), 5)]


class TestLearning:
    def test_thousands_of_invented_names_leave_no_more_than_was_announced(
        self, names: NameFilter
    ) -> None:
        profiler = LayerProfiler()
        graph = DependencyGraph(profiler, own_types={"factual"})
        collector = ExecutionTelemetryCollector("me", (profiler, graph), sample=0.0, names=names)
        rng = random.Random(5)
        for n in range(3_000):
            invented = [f"layer-{rng.random()}" for _ in range(31)]
            skipped = [outcome(name, "none", status="skipped") for name in invented]
            layers = [outcome("a"), *skipped]
            collector.record(record({"a": 30.0}, type_=f"type-{n}", layers_override=layers))
        batch = collector.take_batch()
        assert batch is not None
        assert len(encode(batch)) < 100_000
        assert graph.stats()["layers"] == 1
        assert graph.stats()["pairs"] == 0
        assert graph.stats()["types"] <= MAX_FOREIGN_TYPES + 1

    def test_what_is_known_of_a_configured_type_stays_whatever_others_are_asked(self) -> None:
        profiler = LayerProfiler()
        graph = DependencyGraph(profiler, max_cells=64, own_types={"factual"})
        graph.fold_layer(LayerSum(0, "factual", "parallel", "a", 50, 50, used=50))
        for n in range(1_000):
            graph.fold_layer(LayerSum(60 * n, f"t{n}", "parallel", "a", 5, 5))
        assert ("factual", "a") in graph._use.keys
        assert len(graph._use) <= 64

    def test_pairs_are_counted_of_the_sets_that_are_wanted_most(self) -> None:
        graph = DependencyGraph(LayerProfiler())
        rng = random.Random(1)
        names = [f"l{n:03}" for n in range(300)]
        graph.fold_query(QuerySum(60, "t", "parallel", ("real", "true"), 100))
        for n in range(1_000):
            layers = tuple(sorted(rng.sample(names, 32)))
            graph.fold_query(QuerySum(60 * (n // 500), "t", "parallel", layers, 1))
        assert graph.get_layer_coupling_score("real", "true") == 1.0
        assert graph.stats()["pairs"] <= MAX_SETS * 32 * 31 / 2


class TestBatches:
    def rows(self, count: int) -> Rows:
        queries = tuple(
            QuerySum(1, f"t{n}", "parallel", tuple(f"{n}-{i:0120}" for i in range(32)), n + 1)
            for n in range(count)
        )
        return Rows(queries=queries)

    def test_rows_that_count_most_are_sent_and_the_rest_is_counted(self) -> None:
        kept, dropped = heaviest(self.rows(10), 3)
        assert [row.count for row in kept.queries] == [10, 9, 8]
        assert dropped == sum(range(1, 8))

    def test_a_batch_fits_into_a_record(self) -> None:
        sampled = tuple(record({"a": 1.0}) for _ in range(64))
        batch = TelemetryBatch("me", 1, self.rows(2_000), sampled)
        assert len(encode(batch)) > MAX_VALUE_BYTES
        fits = fitting(batch)
        assert len(encode(fits)) <= MAX_VALUE_BYTES
        sent = sum(row.count for row in fits.rows.queries)
        assert sent + fits.dropped == sum(row.count for row in batch.rows.queries)
        assert len(encode(fits)) > MAX_VALUE_BYTES / 4

    def test_too_many_kinds_of_queries_do_not_keep_the_others_from_being_told(self) -> None:
        collector = ExecutionTelemetryCollector("me", sample=0.0)
        for n in range(3 * MAX_ROWS):
            collector.record(record({f"l{n}": 30.0}))
            collector.record(record({"a": 30.0}))
        batch = collector.take_batch()
        assert batch is not None
        told = {row.layers: row.count for row in batch.rows.queries}
        assert told["a",] == 3 * MAX_ROWS
        assert len(told) <= MAX_ROWS
        assert sum(told.values()) + batch.dropped == 6 * MAX_ROWS


def test_cells_that_are_not_ones_own_go_first() -> None:
    cells: Cells[str] = Cells(1.0, 8, is_own=lambda key: key.startswith("own"))
    cells.add("own", 0, "x", (1,))
    for number in range(100):
        cells.add(f"k{number}", number, "x", (1,))
    assert "own" in cells.keys
