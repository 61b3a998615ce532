"""Ask questions and read answers: many in flight over one producer and one reader."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType
from typing import Any, Final, Literal, Self

from anabranch.admin.cluster_view import ClusterView
from anabranch.admin.diagnostics import DiagnosticFunctions, Diagnostics, Invalidation
from anabranch.config.settings import UNCONFIGURED, Config
from anabranch.contract.codec import MAX_VALUE_BYTES, decode, encode
from anabranch.contract.events import HEADER_CLIENT, Answer, Priority, Query
from anabranch.contract.keys import digest
from anabranch.contract.rejected import QueryRejected
from anabranch.errors import (
    AnabranchError,
    BrokerError,
    BrokerUnavailable,
    DecodeError,
    QueryTimeout,
    StageFailed,
)
from anabranch.kafka.default import default_transport
from anabranch.kafka.topics import Topics, require_topics
from anabranch.kafka.transport import Headers, Record, TopicPartition, Transport
from anabranch.kafka.turns import in_turns
from anabranch.runtime.heartbeat import instance_name
from anabranch.runtime.supervisor import Stage, Supervisor

__all__ = ["Client"]

_FETCH_MS: Final = 500
_REJECTIONS: Final = frozenset({"invalid_query", "overloaded", "quarantined", "unavailable"})


class Client(DiagnosticFunctions):
    """A producer of queries and a subscriber of answers; and diagnostics, from where it is.

        async with Client(config) as client:
            answer = await client.ask("factual", {"text": "..."})

    Args:
        grace_ms: how long after its deadline an answer is still waited for: deadlines are the
            coordinator's business, this is for a pipeline that is not there.
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        transport: Transport | None = None,
        grace_ms: int = 5_000,
    ) -> None:
        config = config or Config()
        transport = transport or default_transport(config.kafka)
        self.name = instance_name("client")
        self._make_diagnostics = partial(Diagnostics, config, transport=transport)
        self._opened: Diagnostics | None = None
        self._opening = asyncio.Lock()
        self._resources = AsyncExitStack()
        self._topics = Topics(config.namespace)
        self._bootstrap = config.kafka.bootstrap
        self._types = config.types
        self._grace_ms = grace_ms
        self._headers: Headers = [(HEADER_CLIENT, self.name.encode())]
        self._producer = transport.producer(self.name)
        self._reader = transport.reader(self.name)
        self._supervisor = Supervisor(f"client {self.name}", bootstrap=config.kafka.bootstrap)
        self._supervisor.on_failure = self._fail
        self._waiting: dict[str, asyncio.Future[Answer]] = {}
        self._streams: set[asyncio.Queue[Answer | None]] = set()

    async def __aenter__(self) -> Self:
        self._supervisor.attach()
        try:
            await asyncio.gather(self._producer.start(), self._reader.start())
            await self._subscribe()
        except BaseException:
            await self._close()
            raise
        self._supervisor.start("answers", self._read_answers)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._close()
        self._supervisor.settle()

    async def ask(
        self,
        type: str,
        params: Mapping[str, Any] | None = None,
        *,
        layers: Sequence[str] | None = None,
        scope: str = "",
        priority: Priority = "medium",
        timeout_ms: int | None = None,
        limit: int = 20,
        min_coverage: float = 1.0,
        max_age_ms: int | None = None,
        strategy: Literal["auto", "cache", "sequential", "parallel", "distributed"] = "auto",
        id: str | None = None,
        headers: Headers = (),
    ) -> Answer:
        """Ask one question and wait for its answer, `complete` or `partial`.

        A `failed` answer whose layers were asked is returned too: it says what is missing.

        Raises:
            QueryRejected: the pipeline would not ask it: invalid, unavailable, overloaded.
            QueryTimeout: no answer within the timeout and the grace after it.
            BrokerError: the broker cannot be reached.
            StageFailed: a background stage of the client died.
        """
        query = Query(
            id=id or secrets.token_hex(8),
            type=type,
            params=dict(params or {}),
            layers=list(layers) if layers is not None else None,
            scope=scope,
            priority=priority,
            timeout_ms=timeout_ms,
            limit=limit,
            min_coverage=min_coverage,
            max_age_ms=max_age_ms,
            strategy=strategy,
        )
        answer = await self.send(query, headers=headers)
        if answer.error is not None and answer.error.code in _REJECTIONS:
            raise QueryRejected(answer.error.code, answer.error.message, answer)
        return answer

    async def send(self, query: Query, *, headers: Headers = ()) -> Answer:
        """Produce a query event as it is and wait for the answer with its id.

        Raises:
            QueryRejected: a query with this id is in flight already, or it is too large.
            QueryTimeout, BrokerError, StageFailed: as `ask`.
        """
        self._supervisor.check()
        if query.id in self._waiting:
            raise QueryRejected("invalid_query", f"{query.id} is in flight already; ids are unique")
        if len(value := encode(query)) > MAX_VALUE_BYTES:
            raise QueryRejected(
                "invalid_query", f"the query has {len(value):,} bytes, over {MAX_VALUE_BYTES:,}"
            )
        timeout_ms = self._types.get(query.type, UNCONFIGURED).timeout_for(query.timeout_ms)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[query.id] = future
        wait_s, taken = (timeout_ms + self._grace_ms) / 1000, False
        try:
            async with asyncio.timeout(wait_s):
                await self._producer.send_and_wait(
                    self._topics.queries,
                    value,
                    key=self._key(query),
                    headers=[*self._headers, *headers],
                )
                taken = True
                return await future
        except TimeoutError:
            if not taken:
                raise BrokerUnavailable(
                    f"the Kafka broker at {self._bootstrap} has not answered for {wait_s:g} s"
                ) from None
            raise QueryTimeout(
                f"no answer to {query.id} within {wait_s:g} s; is a coordinator running on "
                f"{self._topics.queries}?"
            ) from None
        finally:
            self._waiting.pop(query.id, None)

    async def answers(self) -> AsyncIterator[Answer]:
        """All answers on `results` from now on, whoever asked; each id once.

        A second answer to the same query (after a takeover) is dropped.

        Raises:
            StageFailed: a background stage of the client died.
        """
        self._supervisor.check()
        queue: asyncio.Queue[Answer | None] = asyncio.Queue()
        self._streams.add(queue)
        seen: dict[str, None] = {}
        try:
            while True:
                answer = await queue.get()
                if answer is None:
                    self._supervisor.check()
                    return
                if answer.id in seen:
                    continue
                seen[answer.id] = None
                if len(seen) > 100_000:
                    del seen[next(iter(seen))]
                yield answer
        finally:
            self._streams.discard(queue)

    async def wait_failed(self) -> StageFailed:
        """Wait until a background stage has died or got stuck, and return the failure.

        For whoever is not in the body, as a server that has to end itself then.
        """
        return await self._supervisor.wait_failed()

    async def cluster_view(self) -> ClusterView:
        """See `DiagnosticFunctions`."""
        return await (await self._diagnostics()).cluster_view()

    async def invalidate(
        self,
        *,
        layer: str | None = None,
        scope: str | None = None,
        key: str | None = None,
        tags: Sequence[str] = (),
        timeout_ms: int = 5_000,
    ) -> Invalidation:
        """See `DiagnosticFunctions`."""
        diagnostics = await self._diagnostics()
        return await diagnostics.invalidate(
            layer=layer, scope=scope, key=key, tags=tags, timeout_ms=timeout_ms
        )

    # ── details ────────────────────────────────────────────────────────────────────────────

    async def _diagnostics(self) -> Diagnostics:
        """Opened by the first call that needs it, and kept for those that follow."""
        async with self._opening:
            if self._opened is None:
                self._opened = await self._resources.enter_async_context(self._make_diagnostics())
        return self._opened

    def _key(self, query: Query) -> bytes:
        """The same question lands on the same coordinator (rule 12)."""
        kind = self._types.get(query.type, UNCONFIGURED)
        return digest(query.type, query.scope, kind.keyed(query.params)).encode()

    async def _subscribe(self) -> None:
        """Read all answers from here on. Awaited before anything is asked."""
        await require_topics(self._reader, [self._topics.queries, self._topics.results])
        count = await self._reader.partitions(self._topics.results)
        partitions = [TopicPartition(self._topics.results, p) for p in range(count)]
        self._reader.assign(await self._reader.ends(partitions))

    async def _read_answers(self, stage: Stage) -> None:
        while True:
            stage.beat()
            async for _, record in in_turns(await self._reader.fetch(_FETCH_MS)):
                self._take(record)

    def _take(self, record: Record) -> None:
        if not self._streams and not self._is_mine(record):
            return
        try:
            answer = decode(record.value, Answer)
        except DecodeError:
            return  # nobody asked for it
        for queue in self._streams:
            queue.put_nowait(answer)
        future = self._waiting.get(answer.id)
        if future is not None and not future.done():
            future.set_result(answer)

    def _is_mine(self, record: Record) -> bool:
        """Skip others' answers without decoding; an answer without the header may be ours."""
        mine = self._headers[0][1]
        return all(name != HEADER_CLIENT or value == mine for name, value in record.headers)

    def _fail(self) -> None:
        """Nothing is answered any more: whoever waits learns why, at once."""
        self._give_up(self._supervisor.failure or BrokerError("the client was closed"))

    def _give_up(self, error: AnabranchError) -> None:
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(type(error)(*error.args))
        for queue in self._streams:
            queue.put_nowait(None)

    async def _close(self) -> None:
        await self._supervisor.stop()
        self._give_up(BrokerError("the client was closed"))
        await self._resources.aclose()
        await asyncio.gather(self._producer.stop(), self._reader.stop(), return_exceptions=True)
