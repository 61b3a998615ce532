"""Which partitions are ours, and how they change hands without a lost or a second answer.

Rule 2 of the design: one committer with one lock. The revoked-callback takes the lock, waits
for answers in flight, commits, and keeps the lock until the assigned-callback; what comes back
is held until its committed metadata proves that nobody else had it meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import Final

from anabranch.coordinator.delivery.contract import Delivery
from anabranch.coordinator.delivery.publisher import Publisher
from anabranch.coordinator.partitions.backfill import Backfill
from anabranch.coordinator.partitions.committer import Committer
from anabranch.coordinator.partitions.takeover import Takeover
from anabranch.coordinator.progress.restored import Restored
from anabranch.coordinator.query.owned import OwnedPartitions
from anabranch.coordinator.query.partition import QueryPartition
from anabranch.dispatch.released_epochs import ReleasedEpochs
from anabranch.errors import (
    BrokerError,
    BrokerUnavailable,
    GenerationLost,
    ProducerFenced,
    TopicError,
)
from anabranch.kafka.topics import Topics
from anabranch.kafka.transport import GroupConsumer, Reader, TopicPartition
from anabranch.runtime.in_flight import InFlight
from anabranch.runtime.supervisor import Stage, signalled

__all__ = ["Rebalance"]

log = logging.getLogger(__name__)

_RETRY_S: Final = 0.5


class Rebalance:
    """The listener of the group, and the stage that resumes after it has spoken.

    Args:
        new_partition: makes a partition of what was restored.
        follower: of `partials`; assigned here, read elsewhere.
        backfill: told of what was taken over.
        may_resume: set once `health` and `control` were read to their ends.
    """

    def __init__(
        self,
        topics: Topics,
        owned: OwnedPartitions,
        new_partition: Callable[[int, Restored], QueryPartition],
        consumer: Callable[[], GroupConsumer],
        follower: Reader,
        committer: Committer,
        takeover: Takeover,
        backfill: Backfill,
        released: ReleasedEpochs,
        publisher: Publisher,
        delivery: Delivery,
        in_flight: InFlight,
        may_resume: asyncio.Event,
        drain_timeout_s: float,
    ) -> None:
        self.resumed = asyncio.Event()
        """Set while every assigned partition is being read."""
        self._topics = topics
        self._owned = owned
        self._new_partition = new_partition
        self._consumer = consumer
        self._follower = follower
        self._committer = committer
        self._takeover = takeover
        self._backfill = backfill
        self._released = released
        self._publisher = publisher
        self._delivery = delivery
        self._in_flight = in_flight
        self._may_resume = may_resume
        self._drain_timeout_s = drain_timeout_s
        self._lock = committer.lock
        self._assigned: set[int] = set()
        self._generation = 0
        self._changed = asyncio.Event()

    @property
    def epochs(self) -> dict[int, int]:
        """Under which epoch partitions are held here, or were about to be."""
        held = {number: partition.claim.epoch for number, partition in self._owned.items()}
        return {n: progress.epoch for n, progress in self._takeover.claimed.items()} | held

    # ── callbacks of the group consumer ────────────────────────────────────────────────────

    async def revoked(self, partitions: Collection[TopicPartition]) -> None:
        """The group stops: drain, commit, and hold everything until it goes on.

        Raises:
            GenerationLost: the group goes on without us.
        """
        self.resumed.clear()
        self._generation += 1  # a takeover under way is void
        await self._lock.hold()
        for partition in self._owned.values():
            partition.held = True
            partition.progress.clear_suspicion()
        await self._in_flight.drain(self._drain_timeout_s)
        try:
            await self._committer.commit(self._owned.values())
            await self._takeover.clear_suspicion()
        except GenerationLost:
            raise
        except BrokerError as error:
            log.warning("could not commit before the rebalance: %s", error)

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        """The group goes on: everything is paused until the resuming stage knows more."""
        consumer = self._consumer()
        consumer.pause(partitions)
        self._assigned = {tp.partition for tp in partitions}
        for tp in partitions:
            if (kept := self._owned.get(tp.partition)) is not None:
                consumer.seek(tp, kept.progress.position)
        for number in set(self._owned) - self._assigned:
            self._owned.drop(number)
        self._delivery.keep(self._assigned)
        self._follow()
        self._committer.begin_anew()
        self._takeover.begin_anew()
        self._generation += 1
        self._lock.release()
        self._changed.set()

    # ── stage ──────────────────────────────────────────────────────────────────────────────

    async def run(self, stage: Stage) -> None:
        """Stage: after every assignment, confirm what came back and take over what is new."""
        while True:
            stage.beat()
            if await signalled(self._changed) and await signalled(self._may_resume):
                self._changed.clear()
                try:
                    await self._resume(self._generation)
                except (BrokerUnavailable, ProducerFenced) as error:
                    log.warning("will try again to take over: %s", error)
                    self._changed.set()
                    await asyncio.sleep(_RETRY_S)

    # ── what others ask ────────────────────────────────────────────────────────────────────

    async def confirm(self) -> bool:
        """Prove that the group still counts us in; waits for an absent broker.

        Returns:
            False during a rebalance: what it brings is held until it is proven to be ours.

        Raises:
            GenerationLost: it does not.
        """
        while not self._lock.held:
            try:
                await self._consumer().prove()
            except BrokerUnavailable as error:
                log.warning("nothing goes out until the group answers: %s", error)
                await asyncio.sleep(_RETRY_S)
            else:
                return True
        return False

    def drop(self, number: int, error: BrokerError) -> None:
        """What we hold of a partition is void: a transaction failed, or its log is another one.

        It is taken over anew.
        """
        log.warning("partition %d is taken over anew: %s", number, error)
        if self._let_go(number):
            self._consumer().pause([self._tp(number)])
            self._follow()
        self.resumed.clear()
        self._changed.set()

    def doubt(self, number: int) -> None:
        """A partition is read on once its log is seen to hold what was read of it."""
        self._consumer().pause([self._tp(number)])
        self.resumed.clear()
        self._changed.set()

    # ── details ────────────────────────────────────────────────────────────────────────────

    def _tp(self, number: int) -> TopicPartition:
        return TopicPartition(self._topics.queries, number)

    async def _resume(self, generation: int) -> None:
        held = {n: p for n, p in self._owned.items() if p.held}
        committed = await self._takeover.committed(held)
        if generation != self._generation or self._lock.held:
            return
        back = [n for n, p in held.items() if p.held and p.written == committed[n]]
        for number in back:
            held[number].release()
        self._consumer().resume([self._tp(n) for n in back])
        await self._publisher.flush()
        running = {n for n, p in self._owned.items() if not p.held}
        taken = sorted(self._assigned - running)
        if taken and not await self._take_over(taken, generation):
            return
        await self._read_on(generation)
        if generation == self._generation and not self._changed.is_set():
            self.resumed.set()

    async def _read_on(self, generation: int) -> None:
        """Read those in doubt whose logs hold what was read; others are to be taken over anew."""
        doubted = {n: p for n, p in self._owned.items() if p.progress.in_doubt}
        known = await self._takeover.still_hold(doubted) if doubted else ()
        if generation != self._generation:
            return
        for number, partition in doubted.items():
            if self._owned.get(number) is not partition:
                continue
            if number not in known:
                self.drop(number, TopicError("its log lost its tail, or was made anew"))
                continue
            partition.progress.in_doubt = False
            self._consumer().seek(self._tp(number), partition.progress.position)
            if not partition.full:
                self._consumer().resume([self._tp(number)])

    async def _take_over(self, numbers: Collection[int], generation: int) -> bool:
        """Make partitions ours; False if the group changed again meanwhile."""
        for number in numbers:
            self._let_go(number)
        taken = await self._takeover.take_over(numbers, lambda: generation == self._generation)
        if taken is None:
            return False
        for number, (restored, end, at_ms) in taken.items():
            partition = self._new_partition(number, restored)
            partition.progress.stamps.saw_end(end, at_ms)
            self._owned[number] = partition
            self._consumer().seek(self._tp(number), partition.progress.position)
            self._backfill.want(number, (restored.progress.bounds or restored.bounds).partials)
        self._takeover.begin_anew()
        self._follow()
        self._consumer().resume([self._tp(n) for n in taken])
        return True

    def _let_go(self, number: int) -> bool:
        """What we hold of a partition is void; False if it is nothing."""
        partition = self._owned.drop(number)
        if partition is not None:
            self._released.add(number, partition.claim.epoch)
        return partition is not None

    def _follow(self) -> None:
        """Read partials of exactly the partitions that are ours, each from where it was."""
        self._follower.assign(
            {
                TopicPartition(self._topics.partials, number): partition.progress.partials_position
                for number, partition in self._owned.items()
            }
        )
