"""The brokers that tests share, and which tests run where.

Those marked `kafka` need Java and Maven, or Kafka's jars.

With ANABRANCH_REQUIRE_KAFKA=1, as in CI, nothing may be skipped: a skipped test fails the run.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from anabranch.dev.embedded import EmbeddedBroker
from anabranch.dev.local_kafka import LocalKafka

settings.register_profile(
    "anabranch", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("anabranch")  # a busy machine is no defect of the code

REQUIRED = os.environ.pop("ANABRANCH_REQUIRE_KAFKA", "") not in ("", "0")
"""Taken out of the environment: processes that tests start would take it for a setting."""
AVAILABLE = bool(
    shutil.which("java") and (shutil.which("mvn") or os.environ.get("ANABRANCH_KAFKA_HOME"))
)


@pytest.fixture(scope="session")
def embedded() -> Iterator[str]:
    """Address of the embedded broker."""
    with EmbeddedBroker() as broker:
        yield broker.bootstrap


@pytest.fixture(scope="session")
def kafka_node() -> Iterator[LocalKafka]:
    """A real Kafka of one node; who suspends it resumes it."""
    with LocalKafka(nodes=1) as broker:
        yield broker


@pytest.fixture(scope="session")
def kafka(kafka_node: LocalKafka) -> str:
    """Address of a real Kafka."""
    return kafka_node.bootstrap


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a real Kafka where there can be none and none is required."""
    if AVAILABLE or REQUIRED:
        return
    reason = pytest.mark.skip(reason="needs Java 17, and Maven or ANABRANCH_KAFKA_HOME")
    for item in items:
        if item.get_closest_marker("kafka"):
            item.add_marker(reason)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A run in which nothing may be skipped fails if something was."""
    if REQUIRED and _skipped(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say why a run without failures failed."""
    if REQUIRED and (count := _skipped(config)):
        terminalreporter.write_line(
            f"{count} skipped, and ANABRANCH_REQUIRE_KAFKA forbids it", red=True
        )


def _skipped(config: pytest.Config) -> int:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return len(reporter.stats.get("skipped", ())) if reporter else 0
