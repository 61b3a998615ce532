"""Broker and workers as far as one owned partition can tell: for its model and its examples."""

from __future__ import annotations

from typing import Any

import msgspec
from records import FakeRecord

from anabranch.config.settings import Config, TypeConfig
from anabranch.contract.codec import decode_partial, encode
from anabranch.contract.events import (
    Answer,
    Item,
    LayerDescriptor,
    MemberHealth,
    Query,
    Task,
    TaskLayer,
)
from anabranch.coordinator.progress.metadata import decode as decode_progress
from anabranch.coordinator.progress.metadata import encode as encode_progress
from anabranch.coordinator.progress.restored import Restored
from anabranch.coordinator.progress.window import Bounds, Progress
from anabranch.coordinator.query.outbox import AnswerOut
from anabranch.coordinator.wiring import QueryParts

LAYERS = {"a": ("io", 1), "b": ("io", 1), "c": ("cpu", 1), "d": ("cpu", 3)}


def content(params: dict[str, Any], layer: str, shard: int) -> list[Item]:
    """What a layer says to a question, whoever asks it and however often."""
    return [Item(f"urn:{params['n']}:{layer}:{shard}:{n}", 1.0 / (n + 1)) for n in range(2)]


class World:
    """Broker and workers, as far as a partition can tell."""

    def __init__(self) -> None:
        self.now_ms = 1_000_000.0
        self.queries: list[FakeRecord] = []
        self.results: list[tuple[int, Answer]] = []
        self.partials: list[FakeRecord] = []
        self.tasks: list[tuple[Task, TaskLayer]] = []
        self.in_flight: list[AnswerOut] = []
        self.commit = (0, encode_progress(Progress(0, bounds=Bounds()))[0])
        self.wanted: dict[int, Query] = {}

    def parts(self) -> QueryParts:
        config = Config(types={"t": TypeConfig(layers=list(LAYERS))})
        parts = QueryParts(config, lambda: self.now_ms)
        for name, (group, shards) in LAYERS.items():
            announced = encode(LayerDescriptor(name, group, shards))
            parts.registry.learn(
                FakeRecord(announced, key=f"layer/{group}/{name}".encode()), self.now_ms
            )
            for n in range(2):
                member = encode(MemberHealth(f"w{n}", "worker", "ready", group=group))
                key = f"member/worker/{group}{n}".encode()
                parts.registry.learn(
                    FakeRecord(member, key=key, timestamp=int(self.now_ms)), self.now_ms
                )
            parts.registry.topics_exist(group, 5)
        return parts

    def restored(self) -> Restored:
        """What a takeover reads, as `recovery.read_back` does."""
        progress = decode_progress(*self.commit)
        progress = msgspec.structs.replace(progress, epoch=progress.epoch + 1)
        bounds = progress.bounds or Bounds()
        bounds_now = Bounds(len(self.results), len(self.partials))
        restored = Restored(progress, bounds_now, len(self.queries))
        for offset, answer in self.results[bounds.results :]:
            restored.add_answer(offset, answer.id)
        for record in self.partials[bounds.partials :]:
            restored.add_partial(record, decode_partial(record.value))
        return restored
