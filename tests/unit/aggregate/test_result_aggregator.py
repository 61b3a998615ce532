"""Merging parts: one list, best first, the same whatever the order in which they came."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from anabranch.aggregate.coverage import enough, patience_ms
from anabranch.aggregate.result_aggregator import (
    DefaultConfidenceScorer,
    LayerPart,
    Merged,
    ResultAggregator,
)
from anabranch.contract.codec import decode, encode
from anabranch.contract.events import Answer, Item, Source


def items(*ids: str, data: Any = None) -> list[Item]:
    """Items with falling scores: 1, 1/2, 1/3..."""
    return [Item(id_, 1.0 / rank, data) for rank, id_ in enumerate(ids, 1)]


def part(layer: str, *ids: str, source: Source = "parallel", **rest: Any) -> LayerPart:
    return LayerPart(layer, source, items(*ids), **{"complete": True, **rest})


def aggregate(*parts: LayerPart, limit: int = 20, **rest: Any) -> Merged:
    return ResultAggregator().aggregate(
        parts, wanted=rest.pop("wanted", len(parts)), limit=limit, **rest
    )


def ids(merged: Merged) -> list[str]:
    return [item.id for item in merged.items]


class TestFusion:
    def test_one_layer_keeps_its_own_order(self) -> None:
        assert ids(aggregate(part("a", "x", "y", "z"))) == ["x", "y", "z"]

    def test_a_reciprocal_rank_score_is_the_sum_of_one_over_sixty_plus_rank(self) -> None:
        merged = aggregate(part("a", "x", "y"), part("b", "y"))
        assert merged.items[0].score == pytest.approx(1 / 62 + 1 / 61)
        assert merged.items[1].score == pytest.approx(1 / 61)

    def test_by_rank_what_two_layers_found_comes_before_what_one_found(self) -> None:
        assert ids(aggregate(part("a", "x", "both"), part("b", "y", "both")))[0] == "both"

    def test_by_rank_scores_of_different_scales_do_not_matter(self) -> None:
        loud = structs.replace(part("b", "y", "z"), items=[Item("y", 9e9), Item("z", 8e9)])
        assert ids(aggregate(part("a", "x"), loud)) == ["x", "y", "z"]

    def test_a_weight_of_the_query_type_lifts_its_layer(self) -> None:
        merged = aggregate(part("a", "x"), part("b", "y"), weights={"b": 2.0})
        assert ids(merged) == ["y", "x"]
        assert merged.items[0].score == pytest.approx(2 / 61)

    def test_a_weight_of_the_layer_counts_where_the_type_sets_none(self) -> None:
        assert ids(aggregate(part("a", "x"), part("b", "y", weight=2.0))) == ["y", "x"]

    def test_the_weight_of_the_type_wins_over_the_layers_own(self) -> None:
        merged = aggregate(part("a", "x"), part("b", "y", weight=2.0), weights={"b": 0.5})
        assert ids(merged) == ["x", "y"]

    def test_a_weight_of_zero_keeps_the_items_and_puts_them_last(self) -> None:
        merged = aggregate(part("a", "y"), part("b", "x"), weights={"b": 0.0})
        assert ids(merged) == ["y", "x"]
        assert merged.items[1].score == 0.0

    def test_by_score_the_highest_weighted_score_comes_first(self) -> None:
        low = LayerPart("a", "parallel", [Item("x", 0.9)], complete=True)
        high = LayerPart("b", "parallel", [Item("y", 0.5)], complete=True)
        assert ids(aggregate(low, high, fusion="score")) == ["x", "y"]
        assert ids(aggregate(low, high, fusion="score", weights={"b": 2.0})) == ["y", "x"]

    def test_by_score_an_item_of_two_layers_has_the_larger_of_its_scores(self) -> None:
        a = LayerPart("a", "parallel", [Item("x", 0.25)])
        b = LayerPart("b", "parallel", [Item("x", 0.75)])
        assert aggregate(a, b, fusion="score").items[0].score == 0.75

    def test_ties_go_by_id(self) -> None:
        assert ids(aggregate(part("b", "y"), part("a", "z"), part("c", "x"))) == ["x", "y", "z"]


class TestDuplicates:
    def test_the_same_id_from_two_layers_is_one_item_that_lists_both(self) -> None:
        merged = aggregate(part("semantic", "x"), part("graph", "x"))
        assert [(item.id, item.layers) for item in merged.items] == [("x", ("graph", "semantic"))]

    def test_an_id_that_a_layer_repeats_counts_once_by_its_best_rank(self) -> None:
        merged = aggregate(part("a", "x", "x", "y"))
        assert ids(merged) == ["x", "y"]
        assert merged.items[0].score == pytest.approx(1 / 61)
        assert merged.items[0].layers == ("a",)

    @pytest.mark.parametrize("order", [(0, 1), (1, 0)])
    def test_an_item_carries_the_data_of_the_first_source(self, order: tuple[int, int]) -> None:
        cached = LayerPart("z", "cache", items("x", data="cached"))
        fresh = LayerPart("a", "distributed", items("x", data="fresh"))
        parts = [(cached, fresh)[i] for i in order]
        assert aggregate(*parts).items[0].data == "cached"

    def test_data_is_taken_from_a_later_source_where_the_first_has_none(self) -> None:
        bare = LayerPart("a", "cache", items("x"))
        rich = LayerPart("b", "parallel", items("x", data={"title": "t"}))
        assert aggregate(bare, rich).items[0].data == {"title": "t"}


class TestConflicts:
    def test_fresh_wins_when_it_is_more_than_a_fifth_larger(self) -> None:
        cached = part("a", *"abcde", source="cache", age_ms=10)
        assert ResultAggregator().resolve(cached, part("a", *"abcdefg")).source == "parallel"

    def test_a_fifth_larger_is_not_enough(self) -> None:
        cached = part("a", *"abcde", source="cache", age_ms=10)
        assert ResultAggregator().resolve(cached, part("a", *"abcdef")) is cached

    @pytest.mark.parametrize(("age_ms", "source"), [(999, "cache"), (1000, "parallel")])
    def test_cache_wins_while_younger_than_a_second(self, age_ms: int, source: str) -> None:
        cached = part("a", "x", source="cache", age_ms=age_ms)
        assert ResultAggregator().resolve(cached, part("a", "y")).source == source

    def test_a_cached_part_of_unknown_age_counts_as_old(self) -> None:
        fresh = part("a", "y")
        assert ResultAggregator().resolve(part("a", "x", source="cache"), fresh) is fresh

    def test_anything_fresh_replaces_an_empty_cached_part(self) -> None:
        fresh = part("a", "x")
        assert ResultAggregator().resolve(part("a", source="cache", age_ms=0), fresh) is fresh

    @pytest.mark.parametrize("cached_first", [True, False])
    def test_of_two_parts_of_one_layer_only_the_chosen_one_is_in_the_answer(
        self, cached_first: bool
    ) -> None:
        parts = [part("a", "old", source="cache", age_ms=5_000), part("a", "new")]
        assert ids(aggregate(*parts if cached_first else reversed(parts))) == ["new"]

    def test_a_conflict_of_one_layer_leaves_the_others_alone(self) -> None:
        merged = aggregate(
            part("a", "old", source="cache", age_ms=5_000), part("a", "new"), part("b", "other")
        )
        assert sorted(ids(merged)) == ["new", "other"]


class TestShards:
    def test_shards_of_a_layer_are_one_part_ordered_by_score(self) -> None:
        one = LayerPart("a", "distributed", [Item("x", 0.9), Item("y", 0.1)], complete=True)
        two = LayerPart("a", "distributed", [Item("z", 0.5)], complete=True)
        merged = aggregate(one, two, wanted=1)
        assert ids(merged) == ["x", "z", "y"]
        assert merged.confidence == 1.0
        assert merged.agreement == 1.0

    def test_a_layer_is_complete_only_if_all_its_shards_are(self) -> None:
        one, two = part("a", "x"), part("a", "y", complete=False)
        assert aggregate(one, two, wanted=1).truncated

    def test_cached_shards_are_as_old_as_the_oldest(self) -> None:
        old = part("a", "x", source="cache", age_ms=5_000)
        young = part("a", "y", source="cache", age_ms=10)
        assert ids(aggregate(old, young, part("a", "new"), wanted=1)) == ["new"]

    def test_together_fresh_shards_can_be_larger_than_what_is_cached(self) -> None:
        cached = part("a", "x", "y", source="cache", age_ms=10)
        merged = aggregate(cached, part("a", "p", "q"), part("a", "r"), wanted=1)
        assert sorted(ids(merged)) == ["p", "q", "r"]


class TestTruncation:
    def test_the_limit_cuts_and_says_so(self) -> None:
        merged = aggregate(part("a", "x", "y", "z"), limit=2)
        assert ids(merged) == ["x", "y"]
        assert merged.truncated

    def test_exactly_the_limit_of_complete_layers_is_not_truncated(self) -> None:
        assert not aggregate(part("a", "x", "y"), limit=2).truncated

    def test_a_layer_that_has_more_makes_the_answer_truncated(self) -> None:
        assert aggregate(part("a", "x", complete=False)).truncated

    def test_duplicates_do_not_count_against_the_limit(self) -> None:
        assert not aggregate(part("a", "x", "y"), part("b", "y", "x"), limit=2).truncated


class TestAgreement:
    def test_layers_that_found_the_same_agree_fully(self) -> None:
        assert aggregate(part("a", "x", "y"), part("b", "y", "x")).agreement == 1.0

    def test_layers_that_share_nothing_do_not_agree(self) -> None:
        assert aggregate(part("a", "x"), part("b", "y")).agreement == 0.0

    def test_of_two_layers_it_is_the_share_of_ids_in_common(self) -> None:
        assert aggregate(part("a", "x", "y"), part("b", "y", "z")).agreement == pytest.approx(1 / 3)

    def test_one_layer_alone_has_nobody_to_disagree_with(self) -> None:
        assert aggregate(part("a", "x")).agreement == 1.0

    def test_a_layer_that_found_nothing_is_not_asked_for_its_agreement(self) -> None:
        assert aggregate(part("a", "x"), part("b")).agreement == 1.0

    def test_a_limit_does_not_change_it(self) -> None:
        parts = part("a", "x", "y"), part("b", "y", "z")
        assert aggregate(*parts, limit=1).agreement == aggregate(*parts).agreement


class TestConfidence:
    def test_everything_wanted_fresh_and_agreed_is_certain(self) -> None:
        assert aggregate(part("a", "x"), part("b", "x")).confidence == 1.0

    def test_nothing_is_no_confidence(self) -> None:
        merged = aggregate(wanted=2)
        assert (merged.items, merged.confidence, merged.truncated) == ([], 0.0, False)

    def test_it_falls_in_proportion_to_missing_layers(self) -> None:
        assert aggregate(part("a", "x"), wanted=4).confidence == pytest.approx(0.25)

    def test_it_falls_by_half_for_each_five_minutes_of_a_cached_parts_age(self) -> None:
        cached = part("a", "x", source="cache", age_ms=300_000)
        assert aggregate(cached).confidence == pytest.approx(0.5)
        assert aggregate(structs.replace(cached, age_ms=600_000)).confidence == pytest.approx(0.25)

    def test_an_unknown_age_is_less_certain_than_none(self) -> None:
        unknown = part("a", "x", source="cache")
        assert aggregate(unknown).confidence < aggregate(part("a", "x")).confidence

    def test_disagreement_costs_a_quarter(self) -> None:
        assert aggregate(part("a", "x"), part("b", "y")).confidence == pytest.approx(0.75)

    @pytest.mark.parametrize(
        ("said", "kept"), [(7.0, 1.0), (-1.0, 0.0), (math.nan, 0.0), (math.inf, 1.0)]
    )
    def test_a_scorer_of_ones_own_is_asked_and_held_within_bounds(
        self, said: float, kept: float
    ) -> None:
        asked: list[tuple[int, list[str], float]] = []

        class Mine:
            def score(self, wanted: int, parts: Sequence[LayerPart], agreement: float) -> float:
                asked.append((wanted, [p.layer for p in parts], agreement))
                return said

        merged = ResultAggregator(Mine()).aggregate([part("a", "x")], wanted=3, limit=5)
        assert merged.confidence == kept
        assert asked == [(3, ["a"], 1.0)]

    def test_more_parts_than_wanted_is_not_more_than_certain(self) -> None:
        assert DefaultConfidenceScorer().score(1, [part("a"), part("b")], 1.0) == 1.0


class TestNumbers:
    @pytest.mark.parametrize("fusion", ["rrf", "score"])
    @pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, 1.7e308, -1.7e308])
    @pytest.mark.parametrize("weight", [1.0, 10.0, math.nan, math.inf])
    def test_the_answer_can_be_written_and_read_whatever_the_scores(
        self, fusion: Any, score: float, weight: float
    ) -> None:
        odd = LayerPart("a", "parallel", [Item("x", score), Item("y", 0.5)])
        other = LayerPart("b", "parallel", [Item("x", score)])
        merged = aggregate(odd, other, fusion=fusion, weights={"a": weight, "b": weight})
        answer = Answer(id="q", status="complete", items=merged.items)
        assert decode(encode(answer), Answer) == answer

    def test_nan_counts_as_zero(self) -> None:
        odd = LayerPart("a", "parallel", [Item("x", math.nan), Item("y", 0.5), Item("z", -0.5)])
        assert ids(aggregate(odd, fusion="score")) == ["y", "x", "z"]

    def test_minus_zero_is_zero(self) -> None:
        odd = LayerPart("a", "parallel", [Item("x", -0.0)])
        assert math.copysign(1.0, aggregate(odd, fusion="score").items[0].score) == 1.0


_SOURCES: list[Source] = ["cache", "sequential", "parallel", "distributed"]
_ITEMS = st.lists(
    st.builds(
        Item,
        id=st.sampled_from("pqrstuvw"),
        score=st.floats(allow_nan=True, width=16),
        data=st.one_of(st.none(), st.integers(0, 3)),
    ),
    max_size=8,
)
_PARTS = st.lists(
    st.builds(
        LayerPart,
        layer=st.sampled_from("abc"),
        source=st.sampled_from(_SOURCES),
        items=_ITEMS,
        age_ms=st.one_of(st.none(), st.integers(0, 2_000)),
        complete=st.booleans(),
        weight=st.floats(0.1, 3.0),
    ),
    max_size=6,
)


class TestProperties:
    @given(data=st.data(), parts=_PARTS, fusion=st.sampled_from(["rrf", "score"]))
    def test_the_same_parts_in_any_order_give_the_same_answer(
        self, data: st.DataObject, parts: list[LayerPart], fusion: Any
    ) -> None:
        shuffled = data.draw(st.permutations(parts))
        one = aggregate(*parts, wanted=3, fusion=fusion)
        assert encode(aggregate(*shuffled, wanted=3, fusion=fusion)) == encode(one)

    @given(parts=_PARTS, limit=st.integers(1, 10), fusion=st.sampled_from(["rrf", "score"]))
    def test_every_answer_is_ordered_unique_bounded_and_made_of_what_came(
        self, parts: list[LayerPart], limit: int, fusion: Any
    ) -> None:
        merged = aggregate(*parts, wanted=3, limit=limit, fusion=fusion)
        came = {(p.layer, item.id) for p in parts for item in p.items}
        assert [(-i.score, i.id) for i in merged.items] == sorted(
            (-i.score, i.id) for i in merged.items
        )
        assert len(set(ids(merged))) == len(merged.items) <= limit
        assert {(name, i.id) for i in merged.items for name in i.layers} <= came
        assert 0.0 <= merged.agreement <= 1.0
        assert 0.0 <= merged.confidence <= 1.0


class TestCoverage:
    @pytest.mark.parametrize(
        ("ok", "wanted", "min_coverage", "answer"),
        [(0, 3, 0.0, False), (1, 3, 0.0, True), (1, 3, 0.34, False), (2, 3, 0.34, True)],
    )
    def test_the_share_and_at_least_one_layer_must_be_ok(
        self, ok: int, wanted: int, min_coverage: float, answer: bool
    ) -> None:
        assert enough(ok, wanted, min_coverage) is answer

    @given(wanted=st.integers(1, 256), data=st.data())
    def test_k_of_n_is_enough_for_a_coverage_written_as_k_over_n(
        self, wanted: int, data: st.DataObject
    ) -> None:
        ok = data.draw(st.integers(1, wanted))
        assert enough(ok, wanted, ok / wanted)
        assert not enough(ok - 1, wanted, ok / wanted)

    def test_full_coverage_needs_every_layer(self) -> None:
        assert not enough(2, 3, 1.0)
        assert enough(3, 3, 1.0)

    def test_patience_is_half_the_remaining_time_when_coverage_is_just_reached(self) -> None:
        assert patience_ms(2, 4, 0.5, 800.0) == 400.0

    def test_patience_shrinks_with_what_is_left_to_gain(self) -> None:
        assert patience_ms(3, 4, 0.5, 800.0) == 200.0
        assert patience_ms(4, 4, 0.5, 800.0) == 0.0

    def test_no_time_left_is_no_patience(self) -> None:
        assert patience_ms(1, 2, 0.5, -5.0) == 0.0
