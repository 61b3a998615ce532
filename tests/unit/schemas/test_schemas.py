"""The generated schemas: true to the events, and to what the last release promised."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from anabranch.contract import events
from anabranch.contract.codec import decode, encode
from anabranch.contract.events import (
    Answer,
    AnswerItem,
    AnswerLayer,
    ComponentStats,
    ControlRecord,
    Error,
    Item,
    LayerDescriptor,
    MemberHealth,
    Missing,
    Partial,
    PartialResult,
    Query,
    Task,
    TaskLayer,
)
from anabranch.contract.rows import Rows
from anabranch.contract.telemetry import ExecutionTelemetry, LayerOutcome, TelemetryBatch
from anabranch.errors import DecodeError
from anabranch.schemas.generate import EVENTS, breaking, generate, main, read_narrowed

ROOT = Path(__file__).parents[3]
SCHEMAS = ROOT / "schemas"

ONE_ANSWERED = ExecutionTelemetry(
    query="q",
    type="factual",
    at_ms=1_700_000_000_000,
    strategy_chosen="parallel",
    strategy_confidence=0.5,
    estimated_latency_ms=10.0,
    total_latency_ms=12.0,
    estimation_error_pct=16.7,
    cache_hit=False,
    success=True,
    layers=(LayerOutcome("graph", "parallel", took_ms=9.0, count=2, used=True),),
)

EXAMPLES: dict[str, list[msgspec.Struct]] = {
    "query": [
        Query(id="q", type="factual"),
        Query(
            id="q",
            type="factual",
            params={"text": "kafka", "deep": {"list": [1, None, "x"]}},
            layers=["semantic"],
            scope="tenant",
            priority="critical",
            timeout_ms=250,
            limit=5,
            min_coverage=0.5,
            max_age_ms=0,
            strategy="distributed",
            reply_to="mine",
        ),
    ],
    "answer": [
        Answer(id="q", status="failed", error=Error("expired", "nothing came")),
        Answer(
            id="q",
            status="partial",
            strategy="parallel",
            reason="2 layers",
            confidence=0.5,
            items=[AnswerItem(("graph", "semantic"), "git:a", 0.03, {"title": "A"})],
            layers={"graph": AnswerLayer("cache", "ok", 1, 12, None, None)},
            missing=[Missing("semantic", "timeout")],
            estimated_ms=3.5,
            took_ms=4.25,
            trace_id="0af7651916cd43dd8448eb211c80319c",
        ),
    ],
    "task": [
        Task("q", 3, 17, "factual", {"text": "x"}, "", 20, 1_700_000_000_000, [TaskLayer("graph")]),
    ],
    "partial": [
        Partial(
            query="q",
            offset=17,
            type="factual",
            scope="",
            limit=20,
            key="",
            generation=0,
            worker="w1",
            results=[
                PartialResult("graph", attempt=(2, 1), items=[Item("git:a", 0.5, [1])], tags=["t"]),
                PartialResult("semantic", status="error", error="boom", transient=True),
            ],
        )
    ],
    "layer-descriptor": [LayerDescriptor("graph", "io", shards=4)],
    "member-health": [MemberHealth("w1", "worker", "ready", "io", partitions=[1, 2])],
    "component-stats": [
        ComponentStats("c1", 5.0, 8, {7: 3}, {"cross_layer_cache": {"hit_rate": 0.5}})
    ],
    "control": [ControlRecord("invalidate", layer="graph", tags=["a"])],
    "telemetry-batch": [
        TelemetryBatch("c1/abc", 1, Rows()),
        TelemetryBatch("c1/abc", 2, Rows(), (ONE_ANSWERED,), dropped=3),
    ],
}


def read(name: str) -> Any:
    return json.loads((SCHEMAS / f"{name}.json").read_text(encoding="utf-8"))


def validate(name: str, event: Any) -> None:
    jsonschema.Draft202012Validator(read(name)).validate(event)


class TestDrift:
    def test_the_files_are_what_the_events_say(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(ROOT)
        assert main(["--check", "schemas"]) == 0

    @pytest.mark.parametrize("damage", ["change", "remove"])
    def test_a_file_that_differs_is_named(
        self, damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main([str(tmp_path)]) == 0
        assert main(["--check", str(tmp_path)]) == 0
        file = tmp_path / "task.json"
        file.write_text("{}") if damage == "change" else file.unlink()
        assert main(["--check", str(tmp_path)]) == 1
        assert "task.json" in capsys.readouterr().err

    def test_a_broken_promise_is_named(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        main([str(tmp_path)])
        released = read("task")
        released["$defs"]["Task"]["properties"]["colour"] = {"type": "string"}
        (tmp_path / "released").mkdir()
        (tmp_path / "released" / "task.json").write_text(json.dumps(released))
        assert main(["--check", str(tmp_path)]) == 1
        assert "Task.colour is gone" in capsys.readouterr().err

    def test_every_event_that_has_a_topic_of_ours_has_a_schema(self) -> None:
        parts = {
            "AnswerItem", "AnswerLayer", "Error", "Item", "Missing", "PartialResult", "TaskLayer",
        }  # fmt: skip
        structs = {
            name
            for name in events.__all__
            if isinstance(found := getattr(events, name), type)
            and issubclass(found, msgspec.Struct)
        }
        published = {kind.__name__ for kind in EVENTS.values()}
        assert published == (structs - parts) | {"TelemetryBatch"}  # it lives with learning


class TestSchemas:
    @pytest.mark.parametrize("name", EVENTS)
    def test_a_schema_is_a_schema(self, name: str) -> None:
        jsonschema.Draft202012Validator.check_schema(read(name))

    @pytest.mark.parametrize(
        ("name", "event"), [(name, event) for name in EVENTS for event in EXAMPLES[name]]
    )
    def test_what_we_write_is_what_the_schema_allows(
        self, name: str, event: msgspec.Struct
    ) -> None:
        validate(name, json.loads(encode(event)))

    def test_unknown_fields_are_allowed(self) -> None:
        validate("query", {"id": "q", "type": "t", "invented_later": True})

    @pytest.mark.parametrize(
        "wrong",
        [
            {"type": "t"},
            {"id": "", "type": "t"},
            {"id": "q", "type": "t", "timeout_ms": 0},
            {"id": "q", "type": "t", "limit": 0},
            {"id": "q", "type": "t", "min_coverage": 1.5},
            {"id": "q", "type": "t", "priority": "urgent"},
            {"id": "q", "type": "t", "layers": "semantic"},
            {"id": "q", "type": "t", "params": []},
        ],
    )
    def test_a_wrong_query_is_refused_by_schema_and_decoder_alike(
        self, wrong: dict[str, Any]
    ) -> None:
        with pytest.raises(jsonschema.ValidationError):
            validate("query", wrong)
        with pytest.raises(DecodeError):
            decode(json.dumps(wrong).encode(), Query)


Change = Callable[[dict[str, Any]], object]


def _task(schema: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = schema["$defs"]["Task"]
    return found


class TestCompatibility:
    @pytest.mark.parametrize("name", EVENTS)
    def test_no_event_breaks_what_the_last_release_promised(self, name: str) -> None:
        released = SCHEMAS / "released" / f"{name}.json"
        narrowed = read_narrowed(SCHEMAS)
        assert (
            breaking(json.loads(released.read_text(encoding="utf-8")), read(name), narrowed) == []
        )

    def test_every_field_that_is_listed_as_narrowed_is(self) -> None:
        """So that the list is emptied at a release, and says nothing that is not so."""
        sentences = {
            sentence.removesuffix(" means something else than before")
            for name in EVENTS
            for sentence in breaking(
                json.loads((SCHEMAS / "released" / f"{name}.json").read_text()), read(name)
            )
        }
        assert read_narrowed(SCHEMAS) == sentences

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda s: _task(s)["properties"].pop("scope"), "Task.scope is gone"),
            (lambda s: s["$defs"].pop("TaskLayer"), "TaskLayer is gone"),
            (
                lambda s: _task(s)["properties"]["limit"].update(type="string"),
                "Task.limit means something else than before",
            ),
            (
                lambda s: _task(s)["properties"]["generation"].update(default=1),
                "Task.generation means something else than before",
            ),
            (lambda s: _task(s)["required"].append("key"), "Task.key is required now"),
            (lambda s: _task(s)["required"].append("fresh"), "Task.fresh is required now"),
            (lambda s: _task(s)["required"].remove("scope"), "Task.scope may be left out now"),
        ],
    )
    def test_a_breaking_change_is_caught(self, change: Change, said: str) -> None:
        released = read("task")
        current = copy.deepcopy(released)
        change(current)
        assert said in breaking(released, current)

    @pytest.mark.parametrize(
        ("change", "allowed"),
        [
            (lambda limit: limit.update(maximum=5), True),
            (lambda limit: limit.update(type="number"), False),
            (lambda limit: limit.update(default=3), False),
            (lambda limit: limit.update(enum=[1, 2]), False),
        ],
    )
    def test_a_field_listed_as_narrowed_may_have_new_bounds_and_nothing_else(
        self, change: Change, allowed: bool
    ) -> None:
        released = read("task")
        released["$defs"]["Task"]["properties"]["limit"] = {"type": "integer"}
        current = copy.deepcopy(released)
        change(current["$defs"]["Task"]["properties"]["limit"])
        assert (breaking(released, current, {"Task.limit"}) == []) == allowed
        assert breaking(released, current, {"Task.offset"})

    def test_a_bound_that_was_released_may_not_be_narrowed_even_if_listed(self) -> None:
        released = read("task")
        current = copy.deepcopy(released)
        _task(current)["properties"]["limit"]["maximum"] = 5
        assert breaking(released, current, {"Task.limit"})

    @pytest.mark.parametrize(
        "change",
        [
            lambda s: _task(s)["properties"].update(fresh={"type": "string", "default": ""}),
            lambda s: s["$defs"].update(New={"type": "object", "properties": {}}),
            lambda s: _task(s).update(description="said better"),
            lambda s: _task(s)["properties"]["limit"].update(description="how many"),
        ],
    )
    def test_an_addition_breaks_nothing(self, change: Change) -> None:
        released = read("task")
        current = copy.deepcopy(released)
        change(current)
        assert breaking(released, current) == []


class TestAsyncApi:
    def document(self) -> Any:
        return json.loads(generate()["asyncapi.json"])

    def test_every_reference_leads_somewhere(self) -> None:
        document = self.document()

        def references(node: Any) -> list[str]:
            if isinstance(node, dict):
                here = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
                return here + [ref for child in node.values() for ref in references(child)]
            return (
                [ref for child in node for ref in references(child)]
                if isinstance(node, list)
                else []
            )

        found = references(document)
        assert found
        for reference in found:
            node = document
            for step in reference.removeprefix("#/").split("/"):
                assert step in node, reference
                node = node[step]

    def test_every_topic_stands_in_it_with_its_partitions(self) -> None:
        channels = self.document()["channels"]
        partitions = {
            channel["address"]: channel["bindings"]["kafka"]["partitions"]
            for channel in channels.values()
        }
        assert partitions == {
            "anabranch.queries": 12,
            "anabranch.partials": 12,
            "anabranch.results": 12,
            "anabranch.tasks.{group}.{priority}": 20,
            "anabranch.health": 1,
            "anabranch.telemetry": 1,
            "anabranch.control": 1,
            "anabranch.dlq": 1,
        }

    def test_every_event_is_a_message_of_some_channel(self) -> None:
        channels = self.document()["channels"].values()
        carried = {name for channel in channels for name in channel["messages"]}
        assert carried == {kind.__name__ for kind in EVENTS.values()} | {"DeadLetter"}

    def test_tasks_partials_and_answers_carry_the_querys_offset(self) -> None:
        messages = self.document()["components"]["messages"]
        carrying = {
            name
            for name, message in messages.items()
            if events.HEADER_OFFSET in message.get("headers", {}).get("properties", {})
        }
        assert carrying == {"Task", "Partial", "Answer"}
