"""The simulation notices: each promise, broken on purpose, is a violation within a few seeds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sim_world import simulate

from anabranch.cache.keys import make_key
from anabranch.coordinator.brain import Deadlines
from anabranch.coordinator.outbox import AnswerOut
from anabranch.coordinator.partition import QueryPartition
from anabranch.coordinator.publisher import Publisher
from anabranch.coordinator.restored import SeenIds
from anabranch.kafka.progress import Window

Patch = pytest.MonkeyPatch


def commit_what_is_open(patch: Patch) -> None:
    patch.setattr(Window, "watermark", property(lambda self: self.position))


def complete_before_the_ack(patch: Patch) -> None:
    send = Publisher._answer

    async def too_early(self: Publisher, out: AnswerOut) -> None:
        out.owner.on_acked(out.offset, None)
        await send(self, out)

    patch.setattr(Publisher, "_answer", too_early)


def ignore_deadlines(patch: Patch) -> None:
    patch.setattr(Deadlines, "pop_due", lambda self, now_ms: [])


def answer_repeats(patch: Patch) -> None:
    patch.setattr(SeenIds, "is_repeat", lambda self, id_, offset, now_ms: False)


def share_across_scopes(patch: Patch) -> None:
    def leak(type_: str, scope: str, *rest: Any) -> Any:
        return make_key(type_, "", *rest)

    patch.setattr("anabranch.coordinator.planning.make_key", leak)


def forget_what_is_deferred(patch: Patch) -> None:
    def release(self: QueryPartition) -> None:
        self.held = False
        self.deferred = []

    patch.setattr(QueryPartition, "release", release)


@pytest.mark.parametrize(
    ("kind", "sabotage"),
    [
        ("kills", commit_what_is_open),
        ("kills", complete_before_the_ack),
        ("calm", ignore_deadlines),
        ("calm", answer_repeats),
        ("calm", share_across_scopes),
        ("storm", forget_what_is_deferred),
    ],
)
def test_a_broken_promise_is_noticed(
    kind: str, sabotage: Callable[[Patch], None], monkeypatch: Patch
) -> None:
    sabotage(monkeypatch)
    assert any(simulate(kind, seed).violations for seed in range(60))
