"""The broker's side of a transactional id: epochs, fencing, timeouts."""

from __future__ import annotations

import asyncio
from contextvars import Context

from anabranch.errors import ProducerFenced
from anabranch.testing.memory.log import Log

__all__ = ["TransactionalId"]


class TransactionalId:
    """The broker's side of one transactional id. Methods are what a request does, at once."""

    def __init__(self, timeout_s: float) -> None:
        self.epoch = 0
        self._timeout_s = timeout_s
        self._records: dict[Log, list[int]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def init(self) -> int:
        """A producer begins: the one before is fenced, and what it left open is aborted."""
        self._end(committed=False)
        self.epoch += 1
        return self.epoch

    def check(self, epoch: int) -> None:
        """
        Raises:
            ProducerFenced: the producer of that epoch is not the last.
        """
        if epoch != self.epoch:
            raise ProducerFenced(f"epoch {epoch} is over; it is {self.epoch} now")

    def add(self, log: Log, offset: int) -> None:
        """A record of the open transaction; the first begins it."""
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._timeout_s, self.init, context=Context())
        log.hold(offset)
        self._records.setdefault(log, []).append(offset)

    def commit(self) -> None:
        self._end(committed=True)

    def _end(self, *, committed: bool) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        records, self._records = self._records, {}
        for log, offsets in records.items():
            log.decide(offsets, committed=committed)
