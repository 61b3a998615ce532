"""What a local Kafka needs of a machine, and what each node is told; nothing is started here."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

from anabranch.dev import kafka_jars as jars
from anabranch.dev.local_kafka import Node, _free_ports, _settings
from anabranch.errors import BrokerUnavailable


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with nothing on it, an empty cache, and no other home of the jars."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(jars, "user_cache_path", lambda name: tmp_path / "cache" / name)
    monkeypatch.delenv("ANABRANCH_KAFKA_HOME", raising=False)
    return tmp_path


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_without_java_the_error_says_what_to_install(tools: Path) -> None:
    with pytest.raises(BrokerUnavailable, match=r"needs Java.*apt install openjdk.*brew install"):
        jars.java()


def test_an_old_java_is_named(tools: Path) -> None:
    script(tools / "java", """echo 'openjdk version "11.0.2" 2019' >&2""")
    with pytest.raises(BrokerUnavailable, match="is Java 11: install Java 17 or later"):
        jars.java()


def test_a_java_that_does_not_run_is_named(tools: Path) -> None:
    script(tools / "java", "exit 1")
    with pytest.raises(BrokerUnavailable, match=f"{re.escape(str(tools))}/java does not run"):
        jars.java()


def test_a_new_java_will_do(tools: Path) -> None:
    script(tools / "java", """echo 'openjdk version "21.0.1" 2023-10-17' >&2""")
    assert jars.java() == str(tools / "java")


def test_without_maven_the_error_says_what_to_install(tools: Path) -> None:
    with pytest.raises(BrokerUnavailable, match=r"install Maven.*ANABRANCH_KAFKA_HOME"):
        jars.kafka_jars()


def test_mavens_own_words_are_told(tools: Path) -> None:
    script(tools / "mvn", "echo '[INFO] scanning'; echo '[ERROR] no such artifact'; exit 1")
    with pytest.raises(BrokerUnavailable, match=r"could not fetch.*\[ERROR\] no such artifact$"):
        jars.kafka_jars()
    assert list((tools / "cache/anabranch").rglob("*.jar")) == []


def test_jars_are_fetched_once(tools: Path) -> None:
    real = {name: shutil.which(name, path="/usr/bin:/bin") for name in ("mkdir", "touch", "rm")}
    script(
        tools / "mvn",
        'for a; do case $a in -DoutputDirectory=*) d="${a#*=}";; esac; done\n'
        f'{real["mkdir"]} "$d"; {real["touch"]} "$d/kafka_2.13-x.jar"; {real["rm"]} "$0"',
    )
    libs = jars.kafka_jars()
    assert [jar.name for jar in libs.iterdir()] == ["kafka_2.13-x.jar"]
    assert not (tools / "mvn").exists()
    assert jars.kafka_jars() == libs
    assert [path.name for path in libs.parent.iterdir()] == ["libs"]


def test_a_home_without_jars_is_named(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANABRANCH_KAFKA_HOME", str(tools))
    with pytest.raises(BrokerUnavailable, match=r"ANABRANCH_KAFKA_HOME: there is no .*kafka_2.13"):
        jars.kafka_jars()


def nodes(count: int) -> list[Node]:
    ports = (range(i * 10, i * 10 + 3) for i in range(1, count + 1))
    return [Node(i, Path(f"/n{i}"), each, {}) for i, each in enumerate(ports, 1)]


def test_three_nodes_vote_together_and_two_must_have_a_record() -> None:
    cluster = nodes(3)
    told = [_settings(node, cluster) for node in cluster]
    assert {t["controller.quorum.voters"] for t in told} == {
        "1@127.0.0.1:12,2@127.0.0.1:22,3@127.0.0.1:32"
    }
    assert {t["default.replication.factor"] for t in told} == {"3"}
    assert {t["min.insync.replicas"] for t in told} == {"2"}
    assert len({t["listeners"] for t in told}) == len({t["log.dirs"] for t in told}) == 3


def test_one_node_asks_for_no_other() -> None:
    (node,) = nodes(1)
    told = _settings(node, [node])
    assert told["min.insync.replicas"] == told["offsets.topic.replication.factor"] == "1"
    assert told["advertised.listeners"].startswith(f"CLIENT://{node.address},")


def test_free_ports_differ_and_are_below_the_ephemeral_ones() -> None:
    found = _free_ports(9)
    assert len(set(found)) == 9
    assert max(found) < 32_768


def test_the_pom_is_well_formed_and_pins_the_version() -> None:
    ElementTree.fromstring(jars._POM)
    assert jars._POM.count(f"<version>{jars.KAFKA_VERSION}</version>") == 2
