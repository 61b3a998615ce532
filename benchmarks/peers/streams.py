"""Compiles the Kafka Streams peer, with jars that Maven fetches once into the user's cache."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from platformdirs import user_cache_path

from anabranch.dev.kafka_jars import KAFKA_VERSION, java, kafka_jars
from anabranch.errors import BrokerUnavailable

SOURCE = Path(__file__).with_name("GatherStreams.java")
POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>anabranch</groupId><artifactId>streams</artifactId><version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka-streams</artifactId>
      <version>{KAFKA_VERSION}</version>
    </dependency>
  </dependencies>
</project>
"""


def streams_command() -> tuple[str, ...]:
    """The command that runs it, without its arguments.

    Raises:
        BrokerUnavailable: Java's compiler, Maven or a jar is missing; says which.
    """
    compiler = shutil.which("javac")
    if compiler is None:
        raise BrokerUnavailable("there is no javac; install a JDK 17 or later")
    jars = f"{kafka_jars()}/*:{_streams_jars()}/*"
    classes = user_cache_path("anabranch") / "streams-peer"
    classes.mkdir(parents=True, exist_ok=True)
    _run("javac", compiler, "-cp", jars, "-d", str(classes), str(SOURCE))
    options = ("-Xmx512m", "-XX:+UseSerialGC", "-Dlog4j2.level=ERROR")
    return (java(), *options, "-cp", f"{classes}:{jars}", "GatherStreams")


def _streams_jars() -> Path:
    """Kafka Streams and what it needs beside Kafka's own jars."""
    folder = user_cache_path("anabranch") / f"kafka-streams-{KAFKA_VERSION}"
    if next(folder.glob("kafka-streams-*.jar"), None):
        return folder
    maven = shutil.which("mvn")
    if maven is None:
        raise BrokerUnavailable("Kafka Streams has to be fetched with Maven, and there is none")
    with tempfile.TemporaryDirectory() as place:
        pom = Path(place, "pom.xml")
        pom.write_text(POM)
        goal = ("dependency:copy-dependencies", f"-DoutputDirectory={folder}")
        _run("Maven", maven, "-B", "-q", "-f", str(pom), *goal)
    return folder


def _run(name: str, *command: str) -> None:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=900,
    )
    if done.returncode:
        raise BrokerUnavailable(f"{name} failed: {done.stdout[-500:]}")
