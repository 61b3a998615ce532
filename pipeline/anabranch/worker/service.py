"""The worker as a process part: takes tasks of one group, asks its layers, sends partials."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Sequence
from typing import Final

from anabranch.config.settings import Config
from anabranch.contract.codec import decode, encode
from anabranch.contract.events import LayerDescriptor, MemberHealth, Priority, Task
from anabranch.errors import BrokerError, BrokerUnavailable, ConfigError, DecodeError, LayerError
from anabranch.kafka.default import default_transport
from anabranch.kafka.topics import Topics, require_topics
from anabranch.kafka.transport import Record, TopicPartition, Transport
from anabranch.kafka.turns import in_turns
from anabranch.layers.api import LayerSpec, describe
from anabranch.layers.middleware import Wrapper
from anabranch.observe.spans import Trace, Tracer
from anabranch.runtime.clock import Clock, SystemClock
from anabranch.runtime.heartbeat import Heartbeat, instance_name, package_version
from anabranch.runtime.supervisor import Service, Stage, Supervisor, patience_s, signalled, until
from anabranch.worker.executor import Executor
from anabranch.worker.invalidations import Invalidator
from anabranch.worker.job import Job
from anabranch.worker.local_queue import LocalQueue, Throttle
from anabranch.worker.publisher import Publisher
from anabranch.worker.subscription import Subscription
from anabranch.worker.threads import LayerThreads
from anabranch.worker.wrappers import guard

__all__ = ["Worker"]

log = logging.getLogger(__name__)

_FETCH_MS: Final = 500


class Worker(Service):
    """Serves the layers of one group; an async context manager to embed in any application.

        async with Worker(config, group="io", layers=[LayerSpec(my_layer, group="io")]):
            ...

    A stage that dies raises `StageFailed` in the body. Leaving the body drains: stops taking
    tasks, finishes those it has (bounded), publishes, commits, leaves the group.

    Args:
        layers: default: those of `config.layers` in this group.
        wrappers: the user's own, outside the built-in ones.
        transport: defaults to Kafka at `config.kafka.bootstrap`.

    Raises:
        ConfigError: no layer is in this group, or one is in another.
    """

    def __init__(
        self,
        config: Config,
        group: str = "default",
        layers: Sequence[LayerSpec] | None = None,
        *,
        wrappers: Sequence[Wrapper] = (),
        transport: Transport | None = None,
        clock: Clock | None = None,
    ) -> None:
        transport = transport or default_transport(config.kafka)
        self.instance = config.instance or instance_name("worker")
        self.group = group
        self._config = config
        self._layers = _of_group(config, group, layers)
        self._topics = Topics(config.namespace)
        self._supervisor = Supervisor(
            f"worker {self.instance}",
            patience_s(config.kafka.request_timeout_ms),
            config.kafka.bootstrap,
        )
        self._clock = clock or SystemClock()
        self._producer = transport.producer(self.instance)
        self._membership = Heartbeat(
            config.kafka, self._topics.health, self._producer, self._clock, self._describe
        )
        self._now_ms = self._membership.broker_clock.now_ms
        self._signals = transport.reader(f"{self.instance}-signals")
        self._threads = [LayerThreads(s.layer.name, config.worker.slots) for s in self._layers]
        self._tracer = Tracer()
        self._invalidator = Invalidator(self._topics.control, self._producer)
        self._publisher = Publisher(
            self.instance, self._producer, self._topics, self._supervisor.fail
        )
        self._subscription = Subscription(
            transport,
            self._topics,
            config.namespace,
            group,
            self.instance,
            self._membership.publish,
        )
        self._queue: LocalQueue[Job] = LocalQueue(config.worker.max_low_wait_ms)
        self._throttle = Throttle(config.worker.queue)
        self._executor = self._make_executor(wrappers)
        self._announced = asyncio.Event()
        self.tasks = self.dead_letters = 0

    def _make_executor(self, wrappers: Sequence[Wrapper]) -> Executor:
        return Executor(
            self.instance,
            {
                spec.layer.name: guard(spec, threads, wrappers)
                for spec, threads in zip(self._layers, self._threads, strict=True)
            },
            self._queue,
            self._publisher.publish,
            self._clock,
            self._now_ms,
            self._tracer,
            slots=self._config.worker.slots,
            reserve_ms=self._config.worker.reserve_ms,
            max_timeout_ms=self._config.coordinator.max_timeout_ms,
        )

    # ── lifecycle ──────────────────────────────────────────────────────────────────────────

    async def ready(self) -> None:
        """Wait until the layers are announced: a query for them is answered from here on.

        Raises:
            StageFailed: a background stage died meanwhile.
        """
        await self._supervisor.unless_failed(self._announced.wait())

    async def _start(self) -> None:
        await asyncio.gather(self._producer.start(), self._signals.start())
        topics = self._topics
        needed = (topics.health, topics.partials, topics.dlq, *topics.tasks_of(self.group))
        await require_topics(self._producer, needed)
        loop = asyncio.get_running_loop()
        for spec in self._layers:
            if (watch := getattr(spec.layer, "watch", None)) is not None:
                watch(self._invalidator.of(spec.layer.name, loop))
        await asyncio.gather(*(_begin(spec, self._config.source) for spec in self._layers))
        health = TopicPartition(self._topics.health, 0)
        self._signals.assign(await self._signals.ends([health]))
        self._supervisor.start("clock", self._read_clock)
        self._supervisor.start("health", self._membership.run)
        await self._membership.measured.wait()  # deadlines are on the broker's clock
        await self._subscription.consumer.start()
        for name, stage in (
            ("tasks", self._read_tasks),
            ("partials", self._publisher.send),
            ("invalidate", self._invalidator.run),
            ("commit", self._announce_and_commit),
        ):
            self._supervisor.start(name, stage)

    async def _drain(self) -> None:
        """Finish and publish what was taken, commit; what is left runs elsewhere again."""
        self._state = "draining"
        timeout_s = self._config.worker.drain_timeout_ms / 1000
        try:
            async with asyncio.timeout(timeout_s):
                await self._membership.publish()
                await until(lambda: self._publisher.idle and self._executor.idle)
        except (TimeoutError, BrokerError) as error:
            log.warning("drain of %s ended early: %s", self.instance, str(error) or "out of time")
        await self._publisher.settle(timeout_s)
        await self._invalidator.drain(timeout_s)
        try:
            await self._subscription.commit()
        except BrokerError as error:
            log.warning("could not commit at the end: %s", error)

    async def _close(self) -> None:
        await self._supervisor.stop()
        await self._executor.stop()
        timeout_s = self._config.worker.drain_timeout_ms / 1000
        clients = (self._subscription.consumer, self._signals, self._producer)
        await self._supervisor.closed(
            *(_stop(spec, timeout_s) for spec in self._layers),
            *(client.stop() for client in clients),
        )
        for threads in self._threads:
            threads.shutdown()

    # ── stages ─────────────────────────────────────────────────────────────────────────────

    async def _read_tasks(self, stage: Stage) -> None:
        while True:
            stage.beat()
            if self._state == "draining":
                await asyncio.sleep(0.05)
                continue
            async for priority, record in self._subscription.fetch(_FETCH_MS):
                await self._take(record, priority)
            self._executor.pump()
            self._subscription.throttle(self._throttle, len(self._queue))

    async def _announce_and_commit(self, stage: Stage) -> None:
        await self._announce(stage)
        while True:
            stage.beat()
            await asyncio.sleep(self._config.worker.commit_interval_ms / 1000)
            self._subscription.throttle(self._throttle, len(self._queue))
            try:
                await self._subscription.commit()
            except BrokerUnavailable as error:
                log.warning("will commit when the broker is back: %s", error)

    async def _announce(self, stage: Stage) -> None:
        """Tell coordinators of our layers, once tasks for them would be read."""
        while not await signalled(self._subscription.joined):
            stage.beat()
        for spec in self._layers:
            key = f"layer/{self.group}/{spec.layer.name}".encode()
            value = encode(describe(spec))
            await self._producer.send_and_wait(self._topics.health, value, key=key, partition=0)
        self._started()
        self._announced.set()

    async def _read_clock(self, stage: Stage) -> None:
        while True:
            stage.beat()
            async for _, record in in_turns(await self._signals.fetch(_FETCH_MS)):
                self._membership.read_back(record)

    # ── details ────────────────────────────────────────────────────────────────────────────

    async def _take(self, record: Record, priority: Priority) -> None:
        trace = self._tracer.process(record, f"process {record.topic}")
        try:
            job = await self._job(record, trace)
        except BrokerError:
            raise
        except Exception as error:  # whatever one record does costs that record
            trace.end(str(error))
            self.dead_letters += 1
            await self._publisher.dead_letter(record, error)
            return
        self.tasks += 1
        self._queue.put(priority, job, self._clock.monotonic() * 1000)

    async def _job(self, record: Record, trace: Trace) -> Job:
        """The task in a record.

        Raises:
            DecodeError: it is none that could be run.
        """
        task = decode(record.value, Task)
        if not task.layers:
            raise DecodeError("the task names no layers")
        if not await self._publisher.can_reply(task.partition):
            raise DecodeError(f"{self._topics.partials} has no partition {task.partition}")
        return Job(task, trace)

    def _describe(self) -> MemberHealth:
        return MemberHealth(
            instance=self.instance,
            role="worker",
            group=self.group,
            state=self._state,
            version=package_version(),
            host=socket.gethostname(),
            partitions=self._subscription.partitions,
            queued=len(self._queue),
            sent_ms=self._now_ms(),
            stats={
                "tasks": float(self.tasks),
                "expired": float(self._executor.expired),
                "dead_letters": float(self.dead_letters),
                "queue_ms": round(self._executor.wait_ms, 3),
            },
        )


def _of_group(
    config: Config, group: str, layers: Sequence[LayerSpec] | None
) -> Sequence[LayerSpec]:
    if layers is None:
        from anabranch.layers.loading import load_layers

        layers = load_layers(config, group)
    if not layers:
        raise ConfigError(
            f'no layer is in group {group!r}; write group = "{group}" in a [layers.<name>]'
        )
    for spec in layers:
        if spec.group != group:
            raise ConfigError(
                f"layers.{spec.layer.name}.group is {spec.group!r}, but the worker serves "
                f"{group!r}; write the same name in both"
            )
        _fit_to_announce(spec)
    names = [spec.layer.name for spec in layers]
    if len(set(names)) < len(names):
        raise ConfigError(f"two layers of group {group!r} have one name; they are {names}")
    return layers


def _fit_to_announce(spec: LayerSpec) -> None:
    """Coordinators read no descriptor that breaks its schema, and so would never ask the layer."""
    try:
        decode(encode(describe(spec)), LayerDescriptor)
    except (DecodeError, UnicodeEncodeError) as error:
        raise ConfigError(f"layers.{spec.layer.name:.80}: cannot be announced: {error}") from error


async def _call(spec: LayerSpec, method: str) -> None:
    """A layer's optional `start` or `stop`.

    Raises:
        LayerError: it wanted to end the process.
    """
    function = getattr(spec.layer, method, None)
    if function is None:
        return
    try:
        await function()
    except (Exception, asyncio.CancelledError):
        raise
    except BaseException as error:  # SystemExit in a task ends the loop, whoever waits for it
        raise LayerError(f"layers.{spec.layer.name}: {method}() raised {error!r}") from error


async def _begin(spec: LayerSpec, source: str) -> None:
    """A layer's start.

    Raises:
        ConfigError: as the layer raises it: its text begins with the key.
        LayerError: whatever else it raised.
    """
    where = f"{source}: layers.{spec.layer.name}"
    try:
        await _call(spec, "start")
    except ConfigError as error:
        raise ConfigError(f"{where}.{error}") from error
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise LayerError(f"{where}: start() failed with {why}") from error


async def _stop(spec: LayerSpec, timeout_s: float) -> None:
    """A layer's end; ours does not depend on it."""
    try:
        async with asyncio.timeout(timeout_s):
            await _call(spec, "stop")
    except TimeoutError:
        log.warning("layers.%s: stop() took over %g s", spec.layer.name, timeout_s)
    except (Exception, asyncio.CancelledError) as error:
        log.warning("layers.%s: stop() failed with %r", spec.layer.name, error)
