"""The join of one query: which layers are wanted, what has come, when it is settled.

A state machine without I/O. Slots are named by (layer, shard); the first result for a slot
counts, whatever attempt it belongs to, so duplicates cannot count twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from anabranch.contract.bounds import clamped_ms
from anabranch.contract.events import AnswerLayer, Item, PartialResult, Source

__all__ = ["Join", "JoinLayer"]

Status = Literal["open", "ok", "timeout", "error", "skipped"]

_ENDED: dict[str, Status] = {
    "ok": "ok",
    "timeout": "timeout",
    "expired": "timeout",
    "error": "error",
    "skipped": "skipped",
}


class JoinLayer:
    """One wanted layer of a query."""

    __slots__ = (
        "_arrived", "age_ms", "arrived_ms", "attempts", "complete", "error", "first_ms", "fresh",
        "group", "items", "name", "queued_ms", "refreshing", "shards", "shared", "source",
        "status", "took_ms",
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        self.name = name
        self.group = ""
        self.shards = 1
        self.source: Source = "none"
        self.status: Status = "open"
        self.items: Sequence[Item] = ()
        self.complete = False
        self.age_ms: int | None = None
        self.took_ms: float | None = None
        self.queued_ms = 0.0
        self.arrived_ms: float | None = None
        """When its last shard came, on the broker's clock."""
        self.first_ms: float | None = None
        """When its first shard came."""
        self.error: str | None = None
        self.shared = False
        """It was fetched for another query."""
        self.attempts: dict[int, tuple[int, int]] = {}
        """The latest attempt by shard, as (epoch, n)."""
        self.refreshing = False
        """From the cache, but soon to expire: it is fetched beside the missing ones."""
        self.fresh: PartialResult | None = None
        """What that brought, if it came before the answer went out."""
        self._arrived: dict[int, PartialResult] = {}

    @property
    def whole(self) -> bool:
        """Ok, and no shard of it is missing."""
        return self.status == "ok" and self.error is None

    @property
    def results(self) -> list[PartialResult]:
        """What has come of it, by shard."""
        return [self._arrived[shard] for shard in sorted(self._arrived)]

    @property
    def open_shards(self) -> list[int]:
        """Shards that nothing has come for."""
        if self.refreshing:
            return [0]
        if self.status != "open":
            return []
        return [shard for shard in range(self.shards) if shard not in self._arrived]

    def serve(self, items: Sequence[Item], *, complete: bool, age_ms: int) -> None:
        """Filled from the cache."""
        self.source, self.status = "cache", "ok"
        self.items, self.complete, self.age_ms = items, complete, age_ms

    def plan(self, source: Source, group: str, shards: int) -> None:
        """To be fetched, in this way."""
        self.source, self.group, self.shards = source, group, shards

    def end(self, status: Status, error: str) -> None:
        """Ended without a result."""
        self.status, self.error = status, error

    def accept(self, result: PartialResult, now_ms: float) -> bool:
        """Take one shard's result; False if it does not count (ended, repeated, foreign)."""
        if self.refreshing and result.status == "ok":
            self.refreshing, self.fresh = False, result
        if self.status != "open" or result.shards != self.shards or result.shard in self._arrived:
            return False
        if not 0 <= result.shard < self.shards:
            return False
        self._arrived[result.shard] = result
        self.arrived_ms = now_ms
        if self.first_ms is None:
            self.first_ms = now_ms
        if self.shards == 1:
            self._settle_alone(result)
        elif len(self._arrived) == self.shards:
            self._settle()
        return True

    def share(self, other: JoinLayer) -> None:
        """Take what another query's fetch of this layer brought."""
        if self.status == "open":
            self.source, self.status, self.items = other.source, other.status, other.items
            self.complete, self.age_ms, self.took_ms = other.complete, other.age_ms, other.took_ms
            self.arrived_ms, self.error, self.shared = other.arrived_ms, other.error, True

    def reopen(self) -> None:
        """It was given up, but others wait for what is still fetched."""
        self.status, self.error = "open", None

    def expire(self) -> None:
        """The deadline is here: keep the shards that came, name what did not."""
        if self._arrived:
            self._settle()
        else:
            self.end("timeout", "no answer before the deadline")

    def _settle_alone(self, result: PartialResult) -> None:
        """As `_settle`, of a layer that has no shards: nearly all."""
        self.took_ms = clamped_ms(result.took_ms)
        self.queued_ms = clamped_ms(result.queued_ms)
        if result.status == "ok":
            self.items, self.complete = result.items, result.complete
            self.status, self.age_ms = "ok", 0
        else:
            self.status, self.error = _ENDED[result.status], result.error or result.status

    def _settle(self) -> None:
        arrived = self.results
        good = [result for result in arrived if result.status == "ok"]
        self.took_ms = max(clamped_ms(result.took_ms) for result in arrived)
        self.queued_ms = max(clamped_ms(result.queued_ms) for result in arrived)
        lost = self.shards - len(good)
        if good:
            self.items = _merge(good)
            self.complete = not lost and all(result.complete for result in good)
            self.status, self.age_ms = "ok", 0
            self.error = f"{lost} of {self.shards} shards are missing" if lost else None
        else:
            first = arrived[0]
            self.status, self.error = _ENDED[first.status], first.error or first.status

    def report(self) -> AnswerLayer:
        """How this layer stands in the answer."""
        return AnswerLayer(
            source=self.source,
            status="timeout" if self.status == "open" else self.status,
            count=len(self.items),
            age_ms=self.age_ms,
            took_ms=self.took_ms,
            error=self.error,
        )


class Join:
    """All wanted layers of one query."""

    __slots__ = ("layers", "sequence")

    def __init__(self, wanted: Iterable[str]) -> None:
        self.layers = {name: JoinLayer(name) for name in wanted}
        self.sequence: tuple[str, ...] = ()
        """If not empty: planned layers are asked one after another, in this order."""

    def accept(self, result: PartialResult, now_ms: float) -> bool:
        """Take a result that came at `now_ms`; False if it does not count."""
        layer = self.layers.get(result.layer)
        return layer is not None and layer.accept(result, now_ms)

    @property
    def open(self) -> list[JoinLayer]:
        """Layers still outstanding."""
        return [layer for layer in self.layers.values() if layer.status == "open"]

    @property
    def ok(self) -> int:
        """How many wanted layers are ok."""
        return sum(layer.status == "ok" for layer in self.layers.values())

    def found(self) -> int:
        """How many different items have come so far."""
        return len({item.id for layer in self.layers.values() for item in layer.items})

    def expire(self) -> None:
        """The deadline is here: whatever is open is settled with what came."""
        for layer in self.open:
            layer.expire()

    def abandon(self, why: str) -> None:
        """Enough is known: layers that were not asked are skipped."""
        for layer in self.open:
            layer.end("skipped", why)


def _merge(results: Sequence[PartialResult]) -> list[Item]:
    """Items of all shards, best first; ties by id, so that the order of arrival is nothing."""
    items = [item for result in results for item in result.items]
    return sorted(items, key=lambda item: (-item.score, item.id))
