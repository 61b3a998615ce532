"""The simulation notices: each promise, broken on purpose, is a violation within a few seeds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from msgspec import structs
from sim_world import simulate

from anabranch.cache.cross_layer_cache import CrossLayerCache
from anabranch.cache.keys import make_key
from anabranch.contract.events import Partial
from anabranch.coordinator.delivery.at_least_once import AtLeastOnce
from anabranch.coordinator.partitions import recovery
from anabranch.coordinator.progress.dedupe_window import DedupeWindow
from anabranch.coordinator.progress.restored import Restored
from anabranch.coordinator.progress.stamps import Stamps
from anabranch.coordinator.progress.window import Progress, Window
from anabranch.coordinator.query.cache_fill import CacheFill
from anabranch.coordinator.query.claim import Claim
from anabranch.coordinator.query.deadlines import Deadlines
from anabranch.coordinator.query.open_query import OpenQuery
from anabranch.coordinator.query.outbox import AnswerOut
from anabranch.coordinator.query.partition import QueryPartition
from anabranch.kafka.transport import Record
from anabranch.testing.memory.transactional_id import TransactionalId

Patch = pytest.MonkeyPatch


def commit_what_is_open(patch: Patch) -> None:
    patch.setattr(Window, "watermark", property(lambda self: self.position))


def complete_before_the_ack(patch: Patch) -> None:
    produce = AtLeastOnce._produce

    async def too_early(self: AtLeastOnce, claim: Claim, answers: Sequence[AnswerOut]) -> None:
        for out in answers:
            self._owned.acked(claim, out.offset, None)
        await asyncio.sleep(0.2)  # longer than a commit is away
        await produce(self, claim, answers)

    patch.setattr(AtLeastOnce, "_produce", too_early)


def ignore_deadlines(patch: Patch) -> None:
    patch.setattr(Deadlines, "pop_due", lambda self, now_ms: [])


def answer_repeats(patch: Patch) -> None:
    patch.setattr(DedupeWindow, "is_repeat", lambda self, id_, offset, now_ms: False)


def forget_ids_at_a_takeover(patch: Patch) -> None:
    patch.setattr(Restored, "ids", lambda self, now_ms: ())


def share_across_scopes(patch: Patch) -> None:
    def leak(type_: str, scope: str, *rest: Any) -> Any:
        return make_key(type_, "", *rest)

    patch.setattr("anabranch.coordinator.query.cache_lookup.make_key", leak)


def ignore_invalidations(patch: Patch) -> None:
    patch.setattr(CrossLayerCache, "invalidate", lambda self, **order: 0)


def stamp_results_when_they_come(patch: Patch) -> None:
    """An invalidation that falls into a fetch is then lost."""
    fold = CacheFill.partial

    def late(
        self: CacheFill, record: Record, partial: Partial, found: OpenQuery | None, now_ms: float
    ) -> None:
        now = structs.replace(partial, generation=self._invalidations.position)
        fold(self, record, now, found, now_ms)

    patch.setattr(CacheFill, "partial", late)


def forget_what_is_deferred(patch: Patch) -> None:
    def release(self: QueryPartition) -> None:
        self.held = False
        self.deferred = []

    patch.setattr(QueryPartition, "release", release)


def let_zombies_commit(patch: Patch) -> None:
    patch.setattr(TransactionalId, "check", lambda self, epoch: None)


def believe_every_stamp(patch: Patch) -> None:
    patch.setattr(Stamps, "asked_ms", lambda self, record, now_ms: float(record.timestamp))


def believe_every_commit(patch: Patch) -> None:
    async def believe(reader: Any, topic: str, marks: Any, beginnings: Any) -> dict[int, int]:
        return dict.fromkeys(marks, -1)

    patch.setattr(recovery, "_known_again", believe)
    patch.setattr(Progress, "mark", None)


def keep_what_retention_took(patch: Patch) -> None:
    def within(self: Progress, beginning: int, end: int) -> Progress:
        return structs.replace(self, offset=max(self.offset, beginning))

    patch.setattr(Progress, "within", within)


@pytest.mark.parametrize(
    ("kind", "sabotage"),
    [
        ("kills", commit_what_is_open),
        ("kills", complete_before_the_ack),
        ("calm", ignore_deadlines),
        ("calm", answer_repeats),
        ("rolling", forget_ids_at_a_takeover),
        ("rolling exactly once", forget_ids_at_a_takeover),
        ("calm", share_across_scopes),
        ("calm", ignore_invalidations),
        ("calm", stamp_results_when_they_come),
        ("storm", forget_what_is_deferred),
        ("storm exactly once", let_zombies_commit),
        ("clocks", believe_every_stamp),
        ("lost tails", believe_every_commit),
        ("retention and kills", keep_what_retention_took),
    ],
)
def test_a_broken_promise_is_noticed(
    kind: str, sabotage: Callable[[Patch], None], monkeypatch: Patch
) -> None:
    sabotage(monkeypatch)
    assert any(simulate(kind, seed).violations for seed in range(60))
