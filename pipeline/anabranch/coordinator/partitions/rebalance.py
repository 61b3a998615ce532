"""Which partitions are ours, and how they change hands without a lost or a second answer.

Rule 2 of the design: one committer with one lock. The revoked-callback takes the lock, waits
for answers in flight, commits, and keeps the lock until the assigned-callback; what comes back
is held until its committed metadata proves that nobody else had it meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from msgspec import structs

from anabranch.coordinator.delivery.contract import Delivery
from anabranch.coordinator.delivery.in_flight import InFlight
from anabranch.coordinator.delivery.publisher import Publisher
from anabranch.coordinator.partitions.backfill import Backfill
from anabranch.coordinator.partitions.commits import entry
from anabranch.coordinator.partitions.progress import Progress, encode
from anabranch.coordinator.partitions.recovery import progress_of, read_back
from anabranch.coordinator.query.brain import Brain
from anabranch.coordinator.query.partition import QueryPartition
from anabranch.errors import BrokerError, BrokerUnavailable, GenerationLost, ProducerFenced
from anabranch.kafka.commit_lock import CommitLock
from anabranch.kafka.transport import Committed, GroupConsumer, Reader, TopicPartition
from anabranch.runtime.supervisor import Stage, signalled

__all__ = ["Ownership"]

log = logging.getLogger(__name__)

_RETRY_S: Final = 0.5


class Ownership:
    """The partitions of `queries` in this coordinator's hands; also the rebalance listener.

    Args:
        reader: for reading back; used by takeovers only.
        follower: of `partials`; assigned here, read elsewhere.
        backfill: told of what was taken over.
        may_resume: set once `health` and `control` were read to their ends.
    """

    def __init__(
        self,
        brain: Brain,
        publisher: Publisher,
        delivery: Delivery,
        in_flight: InFlight,
        reader: Reader,
        follower: Reader,
        backfill: Backfill,
        may_resume: asyncio.Event,
        settle_timeout_s: float,
    ) -> None:
        self.partitions: dict[int, QueryPartition] = {}
        brain.sharing.partitions = self.partitions
        self.consumer: GroupConsumer | None = None
        self.resumed = asyncio.Event()
        """Set while every assigned partition is being read."""
        self._brain = brain
        self._publisher = publisher
        self._delivery = delivery
        self._in_flight = in_flight
        self._reader = reader
        self._follower = follower
        self._backfill = backfill
        self._may_resume = may_resume
        self._settle_timeout_s = settle_timeout_s
        self._lock = CommitLock()
        self._assigned: set[int] = set()
        self._generation = 0
        self._changed = asyncio.Event()
        self._full: set[int] = set()
        self._claimed: dict[int, Progress] = {}
        """Partitions whose takeover has begun in this generation; as it was written."""

    @property
    def epochs(self) -> dict[int, int]:
        """Under which epoch partitions are held here, or were about to be."""
        held = {number: partition.epoch for number, partition in self.partitions.items()}
        return {number: progress.epoch for number, progress in self._claimed.items()} | held

    # ── callbacks of the group consumer ────────────────────────────────────────────────────

    async def revoked(self, partitions: Collection[TopicPartition]) -> None:
        """The group stops: settle, commit, and hold everything until it goes on.

        Raises:
            GenerationLost: the group goes on without us.
        """
        self.resumed.clear()
        self._generation += 1  # a takeover under way is void
        await self._lock.hold()
        for partition in self.partitions.values():
            partition.held = True
            partition.calm()
        await self._in_flight.settle(self._settle_timeout_s)
        try:
            await self._commit(self.partitions.values())
            await self._write({n: _calm(p) for n, p in self._claimed.items()})
        except GenerationLost:
            raise
        except BrokerError as error:
            log.warning("could not commit before the rebalance: %s", error)

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        """The group goes on: everything is paused until the resuming stage knows more."""
        consumer = self._consumer
        consumer.pause(partitions)
        self._assigned = {tp.partition for tp in partitions}
        for tp in partitions:
            if (kept := self.partitions.get(tp.partition)) is not None:
                consumer.seek(tp, kept.position)
        for number in set(self.partitions) - self._assigned:
            self.partitions.pop(number).abandon()
        self._delivery.keep(self._assigned)
        self._follow()
        self._full.clear()
        self._claimed = {}
        self._generation += 1
        self._lock.release()
        self._changed.set()

    # ── stages ─────────────────────────────────────────────────────────────────────────────

    async def resume(self, stage: Stage) -> None:
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

    async def commit(self, stage: Stage) -> None:
        """Stage: commit what is acknowledged, every interval."""
        interval_s = self._brain.config.coordinator.commit_interval_ms / 1000
        while True:
            stage.beat()
            await asyncio.sleep(interval_s)
            try:
                await self.commit_now()
            except BrokerUnavailable as error:
                log.warning("will commit when the broker is back: %s", error)
            self._throttle()
            await self._publisher.flush()

    async def commit_now(self) -> None:
        """Commit every partition that is ours beyond doubt and has moved.

        Raises:
            GenerationLost: the group goes on without us.
            BrokerUnavailable: nobody answers; what is acknowledged can be committed later.
        """
        async with self._lock.turn_soon() as mine:
            if mine:
                await self._commit(p for p in self.partitions.values() if not p.held)

    async def confirm(self) -> bool:
        """Prove that the group still counts us in; waits for an absent broker.

        Returns:
            False during a rebalance: what it brings is held until it is proven to be ours.

        Raises:
            GenerationLost: it does not.
        """
        while not self._lock.held:
            try:
                await self._consumer.prove()
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
            self._consumer.pause([self._tp(number)])
            self._follow()
        self.resumed.clear()
        self._changed.set()

    # ── details ────────────────────────────────────────────────────────────────────────────

    @property
    def _consumer(self) -> GroupConsumer:
        if self.consumer is None:
            raise RuntimeError("the group consumer is not attached")
        return self.consumer

    def _tp(self, number: int) -> TopicPartition:
        return TopicPartition(self._brain.topics.queries, number)

    async def _commit(self, partitions: Iterable[QueryPartition]) -> None:
        entries = [made for made in map(entry, partitions) if made.is_new]
        if entries:
            await self._delivery.commit(entries)

    def _throttle(self) -> None:
        """Read nothing more where the window does not fit into the metadata any more."""
        full = {p.number for p in self.partitions.values() if p.full and not p.held}
        roomy = {n for n, p in self.partitions.items() if not p.full and not p.held}
        self._consumer.pause([self._tp(n) for n in full - self._full])
        self._consumer.resume([self._tp(n) for n in self._full & roomy])
        self._brain.counters.window_full += len(full - self._full)
        self._full = full

    async def _resume(self, generation: int) -> None:
        held = {n: p for n, p in self.partitions.items() if p.held}
        committed = await self._committed(held)
        if generation != self._generation or self._lock.held:
            return
        back = [n for n, p in held.items() if p.held and p.written == committed[n]]
        for number in back:
            held[number].release()
        self._consumer.resume([self._tp(n) for n in back])
        await self._publisher.flush()
        running = {n for n, p in self.partitions.items() if not p.held}
        taken = sorted(self._assigned - running)
        if taken and not await self._take_over(taken, generation):
            return
        if generation == self._generation and self.partitions.keys() >= self._assigned:
            self.resumed.set()

    async def _committed(self, numbers: Iterable[int]) -> dict[int, Committed | None]:
        wanted = {n: self._tp(n) for n in numbers}
        found = await self._consumer.committed(list(wanted.values())) if wanted else {}
        return {n: found.get(tp) for n, tp in wanted.items()}

    async def _take_over(self, numbers: Collection[int], generation: int) -> bool:
        """Make partitions ours; False if the group changed again meanwhile."""
        for number in numbers:
            self._let_go(number)
        await self._consumer.prove()  # a zombie must not fence who has them by right
        await self._delivery.open(numbers)
        taken = await self._committed(numbers)
        if generation != self._generation:
            return False
        queries = [self._tp(n) for n in taken]
        asked_ms = self._brain.now_ms()
        beginnings, ends = await asyncio.gather(
            self._reader.beginnings(queries), self._reader.ends(queries)
        )
        for number, commit in taken.items():
            at = self._tp(number)
            _say_what_is_gone(number, commit, beginnings[at], ends[at])
        claims = {
            n: self._raised(n, progress_of(commit, beginnings[self._tp(n)], ends[self._tp(n)]))
            for n, commit in taken.items()
            if n not in self._claimed  # by a try that was cut short: it counts once
        }
        if not await self._claim(claims, generation):
            return False
        takeovers = {n: self._claimed[n] for n in taken}
        restored = await read_back(self._reader, self._brain, takeovers)
        if generation != self._generation:
            return False
        self._brain.counters.takeovers += sum(commit is not None for commit in taken.values())
        for number, read in restored.items():
            partition = QueryPartition(number, self._brain, read)
            partition.stamps.ended(ends[self._tp(number)], asked_ms)
            self.partitions[number] = partition
            self._consumer.seek(self._tp(number), partition.position)
            self._backfill.want(number, (read.progress.bounds or read.bounds).partials)
        self._claimed = {}
        self._follow()
        self._consumer.resume([self._tp(n) for n in restored])
        return True

    def _let_go(self, number: int) -> bool:
        """What we hold of a partition is void; False if it is nothing."""
        partition = self.partitions.pop(number, None)
        if partition is not None:
            self._brain.directory.released.add(number, partition.epoch)
            partition.abandon()
        return partition is not None

    def _raised(self, number: int, progress: Progress) -> Progress:
        """As a takeover begins: one more of them, unless whoever had it before did not die."""
        raised = structs.replace(progress, epoch=progress.epoch + 1)
        if self._brain.directory.released.has(number, progress.epoch):
            return structs.replace(raised, trials=max(0, progress.trials - 1))
        return structs.replace(raised, takeovers=progress.takeovers + 1)

    async def _claim(self, takeovers: Mapping[int, Progress], generation: int) -> bool:
        """Write the raised epoch before anything is done under it."""
        async with self._lock.turn():
            if generation != self._generation:
                return False
            await self._write(takeovers)
            self._claimed |= takeovers
        return True

    async def _write(self, progress: Mapping[int, Progress]) -> None:
        await self._delivery.write(
            {n: Committed(p.offset, encode(p)[0]) for n, p in progress.items()}
        )

    def _follow(self) -> None:
        """Read partials of exactly the partitions that are ours, each from where it was."""
        self._follower.assign(
            {
                TopicPartition(self._brain.topics.partials, number): partition.partials_position
                for number, partition in self.partitions.items()
            }
        )


def _say_what_is_gone(number: int, commit: Committed | None, beginning: int, end: int) -> None:
    if commit is not None and commit.offset < beginning:
        log.warning(
            "partition %d of queries begins at %d, but was answered only up to %d: retention took "
            "what lay between; raise topics.retention_ms above the longest outage",
            number,
            beginning,
            commit.offset,
        )
    elif commit is not None and commit.offset > end:
        log.warning(
            "partition %d of queries ends at %d, but was read up to %d: it was made anew, or a "
            "node lost records; it is read from its beginning, without what is answered",
            number,
            end,
            commit.offset,
        )


def _calm(progress: Progress) -> Progress:
    """As a clean revoke leaves it: whoever comes next does not come because we died."""
    return structs.replace(progress, takeovers=0)
