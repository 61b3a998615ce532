"""What becomes of queries that cannot be asked."""

from __future__ import annotations

from anabranch.contract.codec import encode, read_id
from anabranch.contract.events import Error
from anabranch.coordinator.progress.dedupe_window import DedupeWindow
from anabranch.coordinator.query.answering import failure
from anabranch.coordinator.query.claim import Claim
from anabranch.coordinator.query.counters import Counters
from anabranch.coordinator.query.open_query import answer_headers
from anabranch.coordinator.query.outbox import AnswerOut, Outbox
from anabranch.errors import DecodeError
from anabranch.kafka.dead_letters import stack_digest
from anabranch.kafka.transport import Record
from anabranch.observe.spans import Trace
from anabranch.runtime.containment import describe

__all__ = ["Rejections"]


class Rejections:
    """A dead letter, then a failed answer if somebody can be told: for one partition."""

    def __init__(self, claim: Claim, ids: DedupeWindow, outbox: Outbox, counters: Counters) -> None:
        self._claim = claim
        self._ids = ids
        self._outbox = outbox
        self._counters = counters

    def give_up(self, record: Record, trace: Trace, error: Exception, now_ms: float) -> None:
        """Handling a query raised this."""
        stack = stack_digest(error)
        told = Error("internal", f"the coordinator failed on it; its dead letter has stack {stack}")
        if isinstance(error, DecodeError):
            told = Error("invalid_query", str(error))
        id_ = _id_of(record, error)
        self.reject(record, trace, told, id_, now_ms, reason=describe(error), stack=stack)

    def reject(
        self,
        record: Record,
        trace: Trace,
        told: Error,
        id_: str | None,
        now_ms: float,
        *,
        reason: str = "",
        stack: str = "",
    ) -> None:
        """Nobody asks this.

        Args:
            told: to whoever asked, if it is known who.
            reason: what operators read of it, if that is more.
        """
        reason = reason or told.message
        self._counters.rejected += 1
        trace.end(reason)
        answer = None
        if id_ is not None and not self._ids.is_repeat(id_, record.offset, now_ms):
            failed = failure(id_, told, epoch=self._claim.epoch, trace_id=trace.trace_id)
            headers = answer_headers(record, trace)
            answer = AnswerOut(self._claim, record.offset, id_.encode(), encode(failed), headers)
        self._outbox.dead_letter(record, reason, stack, self._claim, answer)


def _id_of(record: Record, error: Exception) -> str | None:
    """As it was read before it turned out that it cannot be asked, else as far as it can be."""
    read = error.query_id if isinstance(error, DecodeError) else None
    return read_id(record.value) if read is None else read
