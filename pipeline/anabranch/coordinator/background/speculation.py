"""Warming and prefetch: what nobody has asked yet is fetched at LOW priority, within a budget.

Off unless configured. The choices are `cache.warming` and `cache.prefetch`, pure; here they
become tasks, and what comes back is folded into the cache under its question.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from anabranch.cache.keys import Question, question_digest, question_params
from anabranch.cache.prefetch import Prefetcher
from anabranch.cache.sizes import key_bytes
from anabranch.cache.warming import Warmer
from anabranch.contract.codec import MAX_VALUE_BYTES, encode
from anabranch.contract.events import HEADER_OFFSET, LayerDescriptor, Task, TaskLayer
from anabranch.coordinator.query.outbox import TaskOut
from anabranch.runtime.containment import contained, ignore

if TYPE_CHECKING:
    from anabranch.coordinator.delivery.publisher import Publisher
    from anabranch.coordinator.query.brain import Brain
    from anabranch.runtime.supervisor import Stage

__all__ = ["Speculation"]

_INTERVAL_S: Final = 1.0
_TIMEOUT_MS: Final = 10_000
_NO_OFFSET: Final = -1
"""No query has it: whatever comes of a guess answers nobody."""
_MOST_UNDER_WAY: Final = 1_000
_MAX_QUESTION_BYTES: Final = 1_000
"""Of memory: larger questions are not guessed, so that what is remembered of them is bounded."""


class Speculation:
    """Fetches ahead of being asked."""

    def __init__(self, brain: Brain) -> None:
        config = brain.config.coordinator
        self._brain = brain
        self._warmer = Warmer() if config.warm else None
        self._prefetcher = Prefetcher() if config.prefetch else None
        self._under_way: OrderedDict[str, Question] = OrderedDict()

    def asked(self, key: Question, now_ms: float) -> None:
        """A question was asked: what tends to follow it is fetched, if the budget allows."""
        if self._prefetcher is None or key_bytes(key) > _MAX_QUESTION_BYTES:
            return
        self._prefetcher.asked(key, now_ms)
        for other, _ in self._prefetcher.likely(key):
            layers = self._brain.intake.default_layers(other[0])
            if not layers or self._brain.cache.holds(other, layers, now_ms):
                continue
            cost_ms = sum(self._brain.profiler.latency_ms(layer) for layer in layers)
            if self._prefetcher.guess(other, cost_ms, now_ms + self._ttl_ms(layers)):
                self._fetch(other, layers, limit=20)

    def worked(self, cost_ms: float) -> None:
        """Back ends worked for a question that was asked."""
        for guesser in (self._warmer, self._prefetcher):
            if guesser is not None:
                guesser.budget.worked(cost_ms)

    def question(self, digest: str) -> Question | None:
        """The question that was guessed under a digest, once."""
        return self._under_way.pop(digest, None)

    def stats(self) -> dict[str, dict[str, float]]:
        """What was guessed, and what came of it."""
        guessers = {"warming": self._warmer, "prefetch": self._prefetcher}
        return {name: g.budget.stats() if g else {"on": 0.0} for name, g in guessers.items()}

    def refresh(self) -> None:
        """Fetch what is asked most and will expire before long."""
        if self._warmer is not None:
            found = self._brain.cache.ageing(self._brain.now_ms())
            small = (ageing for ageing in found if key_bytes(ageing.key) <= _MAX_QUESTION_BYTES)
            for ageing in self._warmer.propose(small):
                self._fetch(ageing.key, ageing.layers, ageing.limit)

    async def run(self, stage: Stage, publisher: Publisher) -> None:
        """Stage: refresh what will expire before long, and send what was guessed."""
        while True:
            stage.beat()
            with contained(ignore):
                self.refresh()
            await publisher.flush()
            await asyncio.sleep(_INTERVAL_S)

    def _ttl_ms(self, layers: Sequence[str]) -> int:
        """How long all of what is fetched can be served."""
        found = [self._brain.directory.descriptor(layer) for layer in layers]
        return min((layer.ttl_ms for layer in found if layer is not None), default=0)

    def _fetch(self, key: Question, layers: Sequence[str], limit: int) -> None:
        """One task per group, LOW, on behalf of any partition that is ours."""
        brain = self._brain
        partition = next(iter(brain.sharing.partitions), None)
        if partition is None:
            return
        groups: dict[str, list[LayerDescriptor]] = {}
        for layer in layers:
            found = brain.directory.descriptor(layer)
            if found is not None and found.shards == 1:
                groups.setdefault(found.group, []).append(found)
        digest = question_digest(key)
        self._under_way[digest] = key
        if len(self._under_way) > _MOST_UNDER_WAY:
            self._under_way.popitem(last=False)
        for group, members in groups.items():
            self._send(key, digest, partition, group, members, limit)

    def _send(
        self,
        key: Question,
        digest: str,
        partition: int,
        group: str,
        layers: Sequence[LayerDescriptor],
        limit: int,
    ) -> None:
        brain = self._brain
        task = Task(
            query="",
            partition=partition,
            offset=_NO_OFFSET,
            type=key[0],
            params=question_params(key),
            scope=key[1],
            limit=limit,
            deadline_ms=int(brain.now_ms()) + _TIMEOUT_MS,
            layers=[TaskLayer(layer=layer.layer) for layer in layers],
            key=digest,
            generation=brain.control_position,
        )
        if len(value := encode(task)) > MAX_VALUE_BYTES:
            return
        to = brain.outstanding.choose(group, brain.directory.partitions(group))
        headers = [(HEADER_OFFSET, b"%d" % _NO_OFFSET)]
        brain.outbox.tasks.append(TaskOut(brain.topics.tasks(group, "low"), to, value, headers))
