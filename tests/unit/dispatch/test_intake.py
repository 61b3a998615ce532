"""Which records are queries, which layers they want, by when, and where else their answer goes."""

from __future__ import annotations

from typing import Any

import pytest
from records import FakeRecord

from anabranch.config.settings import CoordinatorConfig, TypeConfig
from anabranch.contract.codec import encode
from anabranch.contract.events import Query
from anabranch.dispatch.intake import Intake
from anabranch.errors import DecodeError

TYPES = {"factual": TypeConfig(layers=["a", "b", "a"], timeout_ms=500)}
INTAKE = Intake(
    CoordinatorConfig(max_timeout_ms=2_000, reply_topics=["mine", "team.*"]),
    TYPES,  # type: ignore[arg-type]
)


def read(**fields: Any) -> Query:
    return INTAKE.read(FakeRecord(encode(Query(**{"id": "q1", "type": "factual", **fields}))))


@pytest.mark.parametrize(
    ("named", "wanted"), [(None, ("a", "b")), (["c", "b", "c", "a"], ("c", "b", "a"))]
)
def test_layers_are_those_named_or_the_types_each_once_in_their_order(
    named: list[str] | None, wanted: tuple[str, ...]
) -> None:
    assert INTAKE.layers(read(layers=named)) == wanted


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"layers": []}, "the list of layers is empty"),
        ({"type": "odd"}, "type 'odd' is not configured with layers"),
        ({"reply_to": "a b"}, "no name that a topic can have"),
        ({"reply_to": "min"}, "not among coordinator.reply_topics"),
        ({"reply_to": "mine.too"}, "not among coordinator.reply_topics"),
        ({"reply_to": "team"}, "not among coordinator.reply_topics"),
    ],
)
def test_what_is_not_allowed_is_refused_with_the_id(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(DecodeError, match=why) as refused:
        read(**fields)
    assert refused.value.query_id == "q1"


@pytest.mark.parametrize("topic", ["mine", "team.", "team.a"])
def test_a_reply_goes_to_topics_that_are_named_or_begin_so(topic: str) -> None:
    assert read(reply_to=topic).reply_to == topic


def test_of_what_is_no_query_the_id_is_told_if_it_can_be_read() -> None:
    with pytest.raises(DecodeError) as refused:
        INTAKE.read(FakeRecord(b'{"id": "q7", "type": 3}'))
    assert refused.value.query_id == "q7"


@pytest.mark.parametrize(
    ("fields", "due_ms"),
    [({}, 10_500), ({"timeout_ms": 70}, 10_070), ({"timeout_ms": 9_999}, 12_000)],
)
def test_it_is_due_after_its_own_time_or_the_types_at_most_the_longest_allowed(
    fields: dict[str, Any], due_ms: float
) -> None:
    assert INTAKE.deadline_ms(read(**fields), 10_000.0) == due_ms
