"""A Kafka that requires TLS, passwords and rights; an Anabranch that has just enough of them."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Literal, NamedTuple
from uuid import uuid4

import pytest
from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from fleet import Fleet
from pipelines import layers_of

from anabranch.client import Client
from anabranch.config.settings import Config, KafkaConfig, TopicsConfig, TypeConfig
from anabranch.coordinator import Coordinator
from anabranch.dev.kafka_jars import java, kafka_jars
from anabranch.dev.local_kafka import LocalKafka
from anabranch.errors import BrokerError, StageFailed
from anabranch.kafka.client import KafkaTransport
from anabranch.kafka.topics import Topics, ensure_topics
from anabranch.layers.api import Item, Request
from anabranch.worker import Worker

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

Mode = Literal["at_least_once", "exactly_once"]
ROLES = ("client", "coordinator", "worker", "operator")
PASSWORD = "not-to-be-seen-anywhere"
ACLS = Path(__file__).parents[2] / "examples" / "acls.sh"


class Secured(NamedTuple):
    """A broker, and how each role comes in."""

    kafka: LocalKafka
    certificate: Path
    tool: Path

    def config(self, namespace: str, role: str, mode: Mode = "at_least_once") -> Config:
        security = {
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_plain_username": role,
            "sasl_plain_password": PASSWORD,
            "ssl_cafile": str(self.certificate),
        }
        return Config(
            namespace=namespace,
            mode=mode,
            kafka=KafkaConfig(
                bootstrap=self.kafka.bootstrap, request_timeout_ms=10_000, client=security
            ),
            topics=TopicsConfig(queries=2, tasks=2),
            types={"t": TypeConfig(layers=["a"])},
        )

    def may_write(self, role: str, topic: str, verb: Literal["--add", "--remove"]) -> None:
        """Give a role the right to write a topic, or take it away."""
        subprocess.run(
            [
                self.tool, "--bootstrap-server", self._inside, verb, "--force",
                "--allow-principal", f"User:{role}", "--operation", "Write", "--topic", topic,
            ],
            check=True, capture_output=True,
        )  # fmt: skip

    @property
    def _inside(self) -> str:
        """Where administrators come in."""
        return f"127.0.0.1:{self.kafka.node(1).broker_port}"

    def allow(self, namespace: str) -> None:
        """Run the documented script, as an administrator on the inside."""
        principals = {role.upper(): f"User:{role}" for role in ROLES}
        subprocess.run(
            [ACLS, self._inside],
            env=os.environ | principals | {"NAMESPACE": namespace, "KAFKA_ACLS": str(self.tool)},
            check=True,
            capture_output=True,
        )


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("tls")
    key, certificate, both = folder / "key.pem", folder / "cert.pem", folder / "both.pem"
    _certify(key, certificate)
    both.write_text(key.read_text() + certificate.read_text())
    tool = folder / "kafka-acls"
    tool.write_text(
        f'#!/bin/sh\nexec {java()} -cp "{kafka_jars()}/*" org.apache.kafka.tools.AclCommand "$@"\n'
    )
    tool.chmod(0o755)
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    settings = {
        "listener.security.protocol.map": "CLIENT:SASL_SSL,BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "listener.name.client.sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.client.scram-sha-512.sasl.jaas.config": scram,
        "listener.name.client.ssl.keystore.type": "PEM",
        "listener.name.client.ssl.keystore.location": str(both),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
    }
    with LocalKafka(settings=settings) as kafka:
        admin = AdminClient({"bootstrap.servers": f"127.0.0.1:{kafka.node(1).broker_port}"})
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        users = [UserScramCredentialUpsertion(r, info, PASSWORD.encode()) for r in ROLES]
        for done in admin.alter_user_scram_credentials(users).values():
            done.result()
        yield Secured(kafka, certificate, tool)


@pytest.fixture(scope="module")
def allowed(secured: Secured) -> str:
    """A namespace in which the roles have their rights; granting them takes its time."""
    namespace = f"s{uuid4().hex[:8]}."
    secured.allow(namespace)
    return namespace


async def answer(request: Request) -> list[Item]:
    return [Item(id=f"a:{request.params['n']}", score=1.0, data={})]


@pytest.mark.parametrize("mode", ["at_least_once", "exactly_once"])
async def test_a_pipeline_works_with_just_the_rights_of_the_documented_script(
    secured: Secured, allowed: str, mode: Mode
) -> None:
    namespace = allowed
    operator = secured.config(namespace, "operator")
    await ensure_topics(KafkaTransport(operator.kafka), operator, ["default"])
    async with AsyncExitStack() as stack:
        coordinator = Coordinator(secured.config(namespace, "coordinator", mode))
        await stack.enter_async_context(coordinator)
        worker = Worker(
            secured.config(namespace, "worker"), "default", layers_of({"a": answer}, "default")
        )
        await stack.enter_async_context(worker)
        await worker.ready()
        await coordinator.ready()
        client = await stack.enter_async_context(Client(secured.config(namespace, "client")))
        got = await client.ask("t", {"n": 1}, timeout_ms=20_000)
        assert got.status == "complete"
        assert [item.id for item in got.items] == ["a:1"]
    await _refused(secured, namespace)


async def _refused(secured: Secured, namespace: str) -> None:
    """What a role may not write it cannot."""
    topics = Topics(namespace)
    forbidden = {
        "worker": (topics.queries, topics.results, topics.telemetry),
        "client": (topics.results, topics.partials, topics.control, topics.health, topics.dlq),
        "coordinator": (topics.queries, topics.partials, topics.control),
    }
    for role, names in forbidden.items():
        producer = KafkaTransport(secured.config(namespace, role).kafka).producer(role)
        await producer.start()
        for name in names:
            with pytest.raises(BrokerError, match=r"(?i)authoriz|no partition|not there"):
                await producer.send_and_wait(name, b"{}", key=b"k", partition=0)
        await producer.stop()


async def test_a_right_that_is_taken_away_ends_the_coordinator_and_loses_no_answer(
    secured: Secured, allowed: str
) -> None:
    """It says which topic refuses it; once the right is back, the query is answered."""
    namespace = allowed
    operator = secured.config(namespace, "operator")
    await ensure_topics(KafkaTransport(operator.kafka), operator, ["default"])
    results = Topics(namespace).results
    specs = layers_of({"a": answer}, "default")
    async with AsyncExitStack() as stack:
        worker = Worker(secured.config(namespace, "worker"), "default", specs)
        await stack.enter_async_context(worker)
        await worker.ready()
        client = await stack.enter_async_context(Client(secured.config(namespace, "client")))
        with pytest.raises(StageFailed, match=rf"not acknowledged.*Authoriz.*{results}"):  # noqa: PT012
            async with Coordinator(secured.config(namespace, "coordinator")) as coordinator:
                await coordinator.ready()
                await asyncio.to_thread(secured.may_write, "coordinator", results, "--remove")
                asking = asyncio.ensure_future(client.ask("t", {"n": 2}, timeout_ms=60_000))
                async with asyncio.timeout(60):
                    await asyncio.Event().wait()
        await asyncio.to_thread(secured.may_write, "coordinator", results, "--add")
        async with Coordinator(secured.config(namespace, "coordinator")):
            got = await asking
    assert got.status == "complete"


CLI_SETTINGS = """
namespace = "{namespace}"
[kafka]
bootstrap = "{bootstrap}"
request_timeout_ms = 8000
[kafka.client]
security_protocol = "SASL_SSL"
sasl_mechanism = "SCRAM-SHA-512"
sasl_plain_username = "${{WHO}}"
sasl_plain_password = "${{SECRET}}"
ssl_cafile = "{cafile}"
[topics]
queries = 2
tasks = 2
[types.t]
layers = ["a"]
[layers.a]
plugin = "synthetic"
"""


class Terminal(NamedTuple):
    """Where commands are run, with a configuration whose secrets are in the environment."""

    settings: Path

    def environ(self, role: str, secret: str = PASSWORD) -> dict[str, str]:
        return os.environ | {"WHO": role, "SECRET": secret}

    def run(self, role: str, *command: str, secret: str = PASSWORD) -> tuple[int, str]:
        """Exit code and all that was said."""
        done = subprocess.run(
            [sys.executable, "-m", "anabranch", *command, "--config", self.settings, "--debug"],
            env=self.environ(role, secret), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, text=True, timeout=60, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout


@pytest.fixture
def terminal(secured: Secured, allowed: str, tmp_path: Path) -> Terminal:
    path = tmp_path / "anabranch.toml"
    path.write_text(
        CLI_SETTINGS.format(
            namespace=allowed, bootstrap=secured.kafka.bootstrap, cafile=secured.certificate
        )
    )
    return Terminal(path)


async def test_the_command_line_works_over_tls_and_shows_no_secret(terminal: Terminal) -> None:
    code, said = terminal.run("operator", "topics")
    assert code == 0, said
    fleet = Fleet(terminal.settings)
    for role in ("coordinator", "worker"):
        await fleet.start(role, role, "--debug", **terminal.environ(role))
    try:
        await fleet.ready()
        code, answered = await asyncio.to_thread(terminal.run, "client", "ask", "t", "n:=1")
        assert code == 0, answered
        assert "complete" in answered
        code, shown = await asyncio.to_thread(terminal.run, "operator", "diagnostics")
        assert code == 0, shown
        assert set((await fleet.stop()).values()) == {0}
    finally:
        await fleet.kill_all()
    logs = "".join(fleet.log(role).read_text() for role in ("coordinator", "worker"))
    assert "ready" in logs
    assert PASSWORD not in said + answered + shown + logs


def test_a_certificate_of_nobody_we_know_is_said(terminal: Terminal, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger.pem"
    _certify(tmp_path / "stranger.key", stranger)
    text = terminal.settings.read_text()
    terminal.settings.write_text(re.sub("ssl_cafile = .*", f'ssl_cafile = "{stranger}"', text))
    code, said = terminal.run("operator", "topics", "--check")
    assert code != 0
    assert "kafka.client" in said
    assert "certificate verify failed" in said
    assert PASSWORD not in said


@pytest.mark.parametrize("command", [("topics", "--check"), ("config",), ("diagnostics",)])
def test_a_wrong_password_is_said_and_never_shown(
    terminal: Terminal, command: tuple[str, ...]
) -> None:
    code, said = terminal.run("client", *command, secret="a-wrong-password")
    assert "a-wrong-password" not in said
    if command != ("config",):
        assert code != 0
        assert "kafka.client" in said


def _certify(key: Path, certificate: Path) -> None:
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
            "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
            "-keyout", key, "-out", certificate,
        ],
        check=True, capture_output=True,
    )  # fmt: skip
