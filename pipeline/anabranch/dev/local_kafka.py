"""A real Apache Kafka as local processes: one node or three, each broker and controller.

    with LocalKafka(nodes=3) as kafka:
        kafka.bootstrap
        kafka.node(2).kill()
        kafka.node(2).start()

Each node listens for clients (CLIENT), for other brokers (BROKER) and as controller, all on the
loopback address. `settings` are added to every node's server.properties and win over ours; for
SASL or TLS towards clients write, for example,

    {"listener.security.protocol.map":
         "CLIENT:SASL_PLAINTEXT,BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
     "listener.name.client.sasl.enabled.mechanisms": "PLAIN",
     "listener.name.client.plain.sasl.jaas.config": "..."}

A guard process (see `guard`) ends the nodes however the calling process ends.
"""

from __future__ import annotations

import base64
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from anabranch.dev.guard import Guard
from anabranch.dev.kafka_jars import java, kafka_jars
from anabranch.errors import BrokerUnavailable

__all__ = ["LocalKafka", "Node"]

HOST: Final = "127.0.0.1"
START_TIMEOUT_S: Final = 90.0
STOP_TIMEOUT_S: Final = 20.0
PORTS: Final = range(20_000, 32_000)
"""Below the ephemeral ranges, so that no connection takes a dead node's port meanwhile."""

_LOG4J: Final = """\
rootLogger.level = INFO
rootLogger.appenderRef.stdout.ref = STDOUT
appender.stdout.type = Console
appender.stdout.name = STDOUT
appender.stdout.layout.type = PatternLayout
appender.stdout.layout.pattern = [%d] %p %m (%c)%n
"""


class Node:
    """One Kafka process, broker and controller.

    `address` is where clients are sent: to the node itself, or to a proxy before it.
    """

    def __init__(
        self, number: int, folder: Path, ports: Sequence[int], environ: Mapping[str, str]
    ) -> None:
        self.number = number
        self.folder = folder
        self._environ = environ
        self.client_port, self.broker_port, self.controller_port, *proxy = ports
        self.address = f"{HOST}:{proxy[0] if proxy else self.client_port}"
        self._command: list[str] = []
        self._group = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process, or None while it does not run."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    @property
    def log(self) -> Path:
        """What the process prints, over all its lives."""
        return self.folder / "server.log"

    def launch(self, command: list[str], group: int) -> None:
        """Start the process for the first time, without waiting until it answers."""
        self._command, self._group = command, group
        self._spawn()

    def start(self) -> None:
        """Start the process again and wait until it answers; nothing if it runs.

        Raises:
            BrokerUnavailable: it ended, or did not answer in time.
        """
        if self.pid is None:
            self._spawn()
            self.wait()

    def wait(self, brokers: int = 1) -> None:
        """Wait until this node answers and knows itself and as many brokers in all."""
        admin = AdminClient(
            {"bootstrap.servers": f"{HOST}:{self.broker_port}", "log_level": 0},
        )
        give_up = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < give_up:
            if self.pid is None:
                break
            try:
                known = admin.list_topics(timeout=0.5).brokers
            except KafkaException:
                continue
            if self.number in known and len(known) >= brokers:
                return
            time.sleep(0.1)
        raise BrokerUnavailable(f"Kafka node {self.number} does not answer: {self._last_words()}")

    def stop(self) -> None:
        """SIGTERM and wait; killed if it takes too long."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL and wait."""
        self._end(signal.SIGKILL)

    def suspend(self) -> None:
        """SIGSTOP, and wait until it stands: connections stay open, nothing answers."""
        self._signal(signal.SIGSTOP)
        if (pid := self.pid) is not None and hasattr(os, "waitid"):  # not everywhere on macOS
            os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def _spawn(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | self._environ,
                process_group=self._group,
            )

    def _end(self, how: signal.Signals) -> None:
        process = self._process
        if process is None:
            return
        self._signal(how)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_TIMEOUT_S)

    def _signal(self, which: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(which)

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        wrong = [line for line in lines if "ERROR" in line or "Exception" in line]
        return (wrong or lines or ["it printed nothing"])[-1]


class LocalKafka:
    """A Kafka cluster for the time of a `with` block.

    Args:
        environ: environment variables of the nodes, beside those of this process.
        proxied: clients are sent to each node's `address`, where nobody listens: the caller runs
            proxies there, in front of the `client_port`s.
        port: of the first node, for clients; by default any that is free.

    Attributes:
        bootstrap: the nodes' client addresses, from `start` on.
        folder: where data, settings and logs lie; removed on `stop` unless it was given. A
            folder that holds a stopped cluster's data is gone on with.

    Raises (from `start` and `with`):
        BrokerUnavailable: Java or Maven is missing, or a node did not start; says which.
    """

    def __init__(
        self,
        nodes: Literal[1, 3] = 1,
        folder: str | Path | None = None,
        settings: Mapping[str, str] | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        proxied: bool = False,
        port: int | None = None,
    ) -> None:
        self._count = nodes
        self._ports = 4 if proxied else 3
        self._port = port
        self._kept = folder is not None
        self.folder = Path(folder).resolve() if folder else Path()
        self._settings = dict(settings or {})
        self._environ = dict(environ or {})
        self._nodes: list[Node] = []
        self._guard: Guard | None = None
        self.bootstrap = ""

    def start(self) -> None:
        """Format what is new, start all nodes, and wait until they answer."""
        run = [java(), "-Xmx384m", "-XX:+UseSerialGC", "-cp", f"{kafka_jars()}/*"]
        if not self._kept:
            self.folder = Path(tempfile.mkdtemp(prefix="anabranch-kafka-"))
        self._guard = Guard(None if self._kept else self.folder)
        try:
            self._write_settings()
            self._format(run)
            log4j = f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}"
            for node in self._nodes:
                command = [*run, log4j, "kafka.Kafka", str(node.folder / "server.properties")]
                node.launch(command, self._guard.group)
            for node in self._nodes:
                node.wait(self._count)
        except BaseException:
            self.stop()
            raise
        self.bootstrap = ",".join(node.address for node in self._nodes)

    def stop(self) -> None:
        """End all nodes; harmless when they have ended before."""
        guard, self._guard = self._guard, None
        if guard is None:
            return
        for node in self._nodes:
            node.resume()
            if not self._kept:
                node.kill()
        for node in reversed(self._nodes):
            node.stop()
        if not self._kept:
            shutil.rmtree(self.folder, ignore_errors=True)
        guard.release()

    @property
    def nodes(self) -> Sequence[Node]:
        """All of them, from number 1 on."""
        return self._nodes

    def node(self, number: int) -> Node:
        """A node by its number, from 1 on."""
        return next(node for node in self._nodes if node.number == number)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _write_settings(self) -> None:
        free = iter(_free_ports(self._ports * self._count))
        for number in range(1, self._count + 1):
            folder, ports = self.folder / f"node-{number}", [next(free) for _ in range(self._ports)]
            if number == 1 and self._port is not None:
                ports[0] = self._port
            self._nodes.append(Node(number, folder, ports, self._environ))
        for node in self._nodes:
            node.folder.mkdir(parents=True, exist_ok=True)
            settings = {**_settings(node, self._nodes), **self._settings}
            text = "".join(f"{key}={value}\n" for key, value in settings.items())
            (node.folder / "server.properties").write_text(text)
        (self.folder / "log4j2.properties").write_text(_LOG4J)

    def _format(self, run: list[str]) -> None:
        cluster = base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip("=")
        # In one word: a cluster id may begin with a dash.
        format_ = [*run, "kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c"]
        running = [
            subprocess.Popen(
                [*format_, str(node.folder / "server.properties")],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for node in self._nodes
            if not (node.folder / "data" / "meta.properties").exists()
        ]
        printed = [process.communicate()[0].strip() for process in running]
        for process, text in zip(running, printed, strict=True):
            if process.returncode:
                raise BrokerUnavailable(f"Kafka's storage could not be formatted: {text}")


def _settings(node: Node, nodes: Sequence[Node]) -> dict[str, str]:
    """A node's server.properties: small and quick to start, replicated where there are three."""
    replicas, in_sync = str(len(nodes)), str(min(2, len(nodes)))
    brokers = f"BROKER://{HOST}:{node.broker_port}"
    listens = f"CLIENT://{HOST}:{node.client_port},{brokers}"
    return {
        "process.roles": "broker,controller",
        "node.id": str(node.number),
        "controller.quorum.voters": ",".join(
            f"{each.number}@{HOST}:{each.controller_port}" for each in nodes
        ),
        "listeners": f"{listens},CONTROLLER://{HOST}:{node.controller_port}",
        "advertised.listeners": f"CLIENT://{node.address},{brokers}",
        "listener.security.protocol.map": "CLIENT:PLAINTEXT,BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "BROKER",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": str(node.folder / "data"),
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": replicas,
        "offsets.topic.num.partitions": "8",
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "transaction.state.log.num.partitions": "8",
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync,
        "group.initial.rebalance.delay.ms": "0",
        "auto.create.topics.enable": "false",
    }


def _free_ports(count: int) -> list[int]:
    found: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise BrokerUnavailable(f"fewer than {count} ports are free between {PORTS[0]} and {PORTS[-1]}")
