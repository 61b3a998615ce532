"""Anabranch: adaptive scatter-gather for Kafka.

Everything for everyday use is here: `from anabranch import Client, Coordinator, Worker, layer`.
Modules are imported when a name of theirs is first used, so `import anabranch` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anabranch.aggregate.result_aggregator import ConfidenceScorer, ResultAggregator
    from anabranch.cache.cross_layer_cache import CrossLayerCache
    from anabranch.client import Client
    from anabranch.config.settings import Config, KafkaConfig, load
    from anabranch.contract.events import Answer, AnswerItem, AnswerLayer, Item, Missing, Query
    from anabranch.contract.rejected import QueryRejected
    from anabranch.contract.telemetry import ExecutionTelemetry
    from anabranch.coordinator import Coordinator
    from anabranch.errors import (
        AnabranchError,
        BrokerError,
        ConfigError,
        LayerError,
        QueryTimeout,
        RecordRefused,
        StageFailed,
    )
    from anabranch.layers.api import Invalidate, Layer, LayerSpec, Request, Result, layer
    from anabranch.learn.dependency_graph import DependencyGraph
    from anabranch.learn.execution_telemetry import ExecutionTelemetryCollector
    from anabranch.learn.profiler import PerformanceProfiler
    from anabranch.select.adaptive_strategy_selector import AdaptiveStrategySelector
    from anabranch.worker import Worker

__all__ = [
    "AdaptiveStrategySelector",
    "AnabranchError",
    "Answer",
    "AnswerItem",
    "AnswerLayer",
    "BrokerError",
    "Client",
    "ConfidenceScorer",
    "Config",
    "ConfigError",
    "Coordinator",
    "CrossLayerCache",
    "DependencyGraph",
    "ExecutionTelemetry",
    "ExecutionTelemetryCollector",
    "Invalidate",
    "Item",
    "KafkaConfig",
    "Layer",
    "LayerError",
    "LayerSpec",
    "Missing",
    "PerformanceProfiler",
    "Query",
    "QueryRejected",
    "QueryTimeout",
    "RecordRefused",
    "Request",
    "Result",
    "ResultAggregator",
    "StageFailed",
    "Worker",
    "layer",
    "load",
]

_HOMES = {
    "aggregate.result_aggregator": ("ConfidenceScorer", "ResultAggregator"),
    "cache.cross_layer_cache": ("CrossLayerCache",),
    "client": ("Client",),
    "config.settings": ("Config", "KafkaConfig", "load"),
    "coordinator": ("Coordinator",),
    "errors": (
        "AnabranchError",
        "BrokerError",
        "ConfigError",
        "LayerError",
        "QueryTimeout",
        "RecordRefused",
        "StageFailed",
    ),
    "contract.events": ("Answer", "AnswerItem", "AnswerLayer", "Item", "Missing", "Query"),
    "contract.rejected": ("QueryRejected",),
    "layers.api": ("Invalidate", "Layer", "LayerSpec", "Request", "Result", "layer"),
    "learn.dependency_graph": ("DependencyGraph",),
    "learn.execution_telemetry": ("ExecutionTelemetryCollector",),
    "learn.profiler": ("PerformanceProfiler",),
    "contract.telemetry": ("ExecutionTelemetry",),
    "select.adaptive_strategy_selector": ("AdaptiveStrategySelector",),
    "worker": ("Worker",),
}
_HOME = {name: f"anabranch.{module}" for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
