"""The AsyncAPI 3 document: topics, keys, headers, and who sends and receives what."""

from __future__ import annotations

from typing import Any, Final

from anabranch.config.settings import Config
from anabranch.contract.events import (
    HEADER_CLIENT,
    HEADER_OFFSET,
    HEADER_TRACEPARENT,
    HEADER_TRACESTATE,
    PRIORITIES,
)
from anabranch.kafka import dead_letters
from anabranch.kafka.topics import Topics, topic_specs
from anabranch.kafka.transport import TopicState

__all__ = ["document"]

Json = dict[str, Any]

_CONTRACT: Final = "1.0.0"
"""Version of the contract, not of the package: fields may be added, nothing may change."""
_KAFKA_BINDING: Final = "0.5.0"

_MESSAGES: Final[dict[str, tuple[str, str]]] = {
    "Query": ("What is asked", "Any; our client hashes (type, scope, params)."),
    "Answer": ("What is answered", "The query's id."),
    "Task": ("Work for one worker of a group", "None: the coordinator chooses the partition."),
    "Partial": ("What layers said", "None: it goes to the partition of its query."),
    "LayerDescriptor": ("A layer that can be asked", "layer/<group>/<name>"),
    "MemberHealth": ("An instance and how it is", "member/<role>/<instance>"),
    "ComponentStats": ("What a coordinator's components count", "stats/<instance>"),
    "TelemetryBatch": ("What a coordinator saw since its last batch; never params", "None"),
    "ControlRecord": ("An order to every coordinator", "What it is aimed at."),
    "DeadLetter": ("A record that nobody could read, as it came", "The record's own."),
}
"""Title, and what stands in the record's key, by event."""

_ALL: Final = {"Query", "Task", "Partial", "Answer"}
_DEAD: Final = {"DeadLetter"}

_HEADERS: Final[dict[str, tuple[set[str], str]]] = {
    HEADER_TRACEPARENT: (_ALL, "W3C Trace Context, replaced at each hop."),
    HEADER_TRACESTATE: (_ALL, "W3C Trace Context, handed through."),
    HEADER_CLIENT: (_ALL, "Whose question it was: a reader skips others' answers by it."),
    HEADER_OFFSET: (_ALL - {"Query"}, "The query's offset in `queries`, in decimal digits."),
    dead_letters.HEADER_REASON: (_DEAD, "Why it could not be read."),
    dead_letters.HEADER_INSTANCE: (_DEAD, "Which instance could not read it."),
    dead_letters.HEADER_TOPIC: (_DEAD, "The topic it was read from."),
    dead_letters.HEADER_PARTITION: (_DEAD, "The partition it was read from."),
    dead_letters.HEADER_SOURCE_OFFSET: (_DEAD, "The offset it was read from."),
    dead_letters.HEADER_TIMESTAMP: (_DEAD, "Its timestamp, in epoch milliseconds."),
    dead_letters.HEADER_TRUNCATED: (_DEAD, "How many bytes it had, if it was cut."),
}
"""Which events carry a header, and what it says."""

_OPERATIONS: Final[dict[str, tuple[str, str]]] = {
    "coordinatorReceivesQueries": ("receive", "queries"),
    "coordinatorSendsTasks": ("send", "tasks"),
    "workerReceivesTasks": ("receive", "tasks"),
    "workerSendsPartials": ("send", "partials"),
    "coordinatorReceivesPartials": ("receive", "partials"),
    "coordinatorSendsAnswers": ("send", "results"),
    "memberSendsHealth": ("send", "health"),
    "coordinatorReceivesHealth": ("receive", "health"),
    "coordinatorReceivesControl": ("receive", "control"),
    "coordinatorSendsTelemetry": ("send", "telemetry"),
    "coordinatorReceivesTelemetry": ("receive", "telemetry"),
    "memberSendsDeadLetters": ("send", "dlq"),
}
"""Action and channel by operation; client and operator do the reverse of the first and last."""


def document(schemas: Json) -> Json:
    """The document, with `schemas` as its components."""
    return {
        "asyncapi": "3.0.0",
        "id": "urn:anabranch",
        "info": {
            "title": "Anabranch",
            "version": _CONTRACT,
            "description": "Adaptive scatter-gather for Kafka: the topics of the default "
            "namespace. Unknown fields are ignored, missing optional ones take their default.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": _channels(),
        "operations": {
            name: {"action": action, "channel": {"$ref": f"#/channels/{channel}"}}
            for name, (action, channel) in _OPERATIONS.items()
        },
        "components": {
            "messages": {name: _message(name) for name in _MESSAGES},
            "schemas": schemas,
        },
    }


def _channels() -> Json:
    group = "{group}"
    specs = topic_specs(Config(), [group])
    topics = Topics(Config().namespace)
    tasks = _channel(
        topics.tasks(group, "critical").replace("critical", "{priority}"),
        specs[topics.tasks(group, "critical")],
        "Task",
    )
    tasks["parameters"] = {
        "group": {"description": "The worker group, as the layer's configuration names it."},
        "priority": {"enum": list(PRIORITIES)},
    }
    return {
        "queries": _channel(topics.queries, specs[topics.queries], "Query"),
        "tasks": tasks,
        "partials": _channel(topics.partials, specs[topics.partials], "Partial"),
        "results": _channel(topics.results, specs[topics.results], "Answer"),
        "health": _channel(
            topics.health,
            specs[topics.health],
            "LayerDescriptor",
            "MemberHealth",
            "ComponentStats",
        ),
        "telemetry": _channel(topics.telemetry, specs[topics.telemetry], "TelemetryBatch"),
        "control": _channel(topics.control, specs[topics.control], "ControlRecord"),
        "dlq": _channel(topics.dlq, specs[topics.dlq], "DeadLetter"),
    }


def _channel(topic: str, state: TopicState, *messages: str) -> Json:
    settings = state.settings
    configuration: Json = {
        "cleanup.policy": settings["cleanup.policy"].split(","),
        "max.message.bytes": int(settings["max.message.bytes"]),
    }
    if "retention.ms" in settings:
        configuration["retention.ms"] = int(settings["retention.ms"])
    kafka: Json = {"partitions": state.partitions, "topicConfiguration": configuration}
    if "{" not in topic:
        kafka["topic"] = topic
    return {
        "address": topic,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        "bindings": {"kafka": {**kafka, "bindingVersion": _KAFKA_BINDING}},
    }


def _message(name: str) -> Json:
    title, key = _MESSAGES[name]
    message: Json = {"title": title}
    if name == "DeadLetter":
        message["contentType"] = "application/octet-stream"
    else:
        message["payload"] = {"$ref": f"#/components/schemas/{name}"}
    headers = {header: text for header, (who, text) in _HEADERS.items() if name in who}
    if headers:
        properties = {
            header: {"type": "string", "description": text} for header, text in headers.items()
        }
        message["headers"] = {"type": "object", "properties": properties}
    binding = {"key": {"type": "string", "description": key}, "bindingVersion": _KAFKA_BINDING}
    return {**message, "bindings": {"kafka": binding}}
