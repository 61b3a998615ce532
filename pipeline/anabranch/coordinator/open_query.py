"""One query between its reading and its answer."""

from __future__ import annotations

from collections.abc import Sequence

from anabranch.aggregate.join import Join
from anabranch.events import HEADER_CLIENT, HEADER_OFFSET, Query
from anabranch.kafka.transport import Headers, Record
from anabranch.observe.spans import Trace
from anabranch.select.decision import Decision, PlanContext

__all__ = ["OpenQuery", "answer_headers"]


class OpenQuery:
    """What a coordinator holds of a query until its answer is on its way."""

    __slots__ = (
        "context", "deadline_ms", "decision", "digest", "generation", "headers", "join", "key",
        "offset", "partition", "query", "read_ms", "routes", "trace",
    )  # fmt: skip

    def __init__(
        self,
        query: Query,
        record: Record,
        trace: Trace,
        wanted: Sequence[str],
        *,
        read_ms: float,
        deadline_ms: float,
    ) -> None:
        self.query = query
        self.partition = record.partition
        self.offset = record.offset
        self.trace = trace
        self.headers = answer_headers(record, trace)
        self.join = Join(wanted)
        self.read_ms = read_ms
        self.deadline_ms = deadline_ms
        self.context: PlanContext | None = None
        self.decision: Decision | None = None
        self.key: tuple[object, ...] = ()
        self.digest = ""
        self.generation = 0
        self.routes: dict[tuple[str, int], tuple[str, int]] = {}
        """(layer, shard) to the (group, partition) it was sent to, while outstanding."""


def answer_headers(record: Record, trace: Trace) -> Headers:
    """Headers of everything a query causes: its trace, its offset, and whose it is."""
    headers = [*trace.headers, (HEADER_OFFSET, b"%d" % record.offset)]
    headers += [(name, value) for name, value in record.headers if name == HEADER_CLIENT]
    return headers
