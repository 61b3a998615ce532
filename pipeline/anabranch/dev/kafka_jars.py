"""Apache Kafka's own jars, fetched once through Maven into the user's cache folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from platformdirs import user_cache_path

from anabranch.errors import BrokerUnavailable
from anabranch.observe.terminal import Screen

__all__ = ["KAFKA_VERSION", "java", "kafka_jars"]

KAFKA_VERSION: Final = "4.1.0"
_FOLDER: Final = f"kafka-{KAFKA_VERSION}"
LOG4J_VERSION: Final = "2.24.3"
MIN_JAVA: Final = 17
FETCH_TIMEOUT_S: Final = 900
_JAVA_VERSION: Final = re.compile(r'version "(\d{1,9})')

_INSTALL_JAVA: Final = (
    f"install Java {MIN_JAVA} or later (Debian, Ubuntu: apt install openjdk-17-jre-headless; "
    f"macOS: brew install openjdk@17) and put `java` on the PATH"
)
_INSTALL_MAVEN: Final = (
    "install Maven (Debian, Ubuntu: apt install maven; macOS: brew install maven), or set "
    "ANABRANCH_KAFKA_HOME to a folder whose libs/ holds Kafka's jars"
)
_POM: Final = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>anabranch</groupId><artifactId>kafka</artifactId><version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId>
      <version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId>
      <version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId>
      <version>{LOG4J_VERSION}</version>
    </dependency>
  </dependencies>
</project>
"""


def java() -> str:
    """The `java` to run.

    Raises:
        BrokerUnavailable: there is none, or it is too old; says what to install.
    """
    path = shutil.which("java")
    if path is None:
        raise BrokerUnavailable(f"a local Kafka needs Java, and there is none: {_INSTALL_JAVA}")
    told = subprocess.run([path, "-version"], capture_output=True, text=True, check=False)
    version = _JAVA_VERSION.search(told.stderr)
    if told.returncode or version is None:
        raise BrokerUnavailable(f"{path} does not run: {_INSTALL_JAVA}")
    if int(version[1]) < MIN_JAVA:
        raise BrokerUnavailable(f"{path} is Java {version[1]}: {_INSTALL_JAVA}")
    return path


def kafka_jars() -> Path:
    """The folder of Kafka's jars, fetched if it is not there yet.

    Raises:
        BrokerUnavailable: they cannot be fetched; says what to install or to look at.
    """
    home = os.environ.get("ANABRANCH_KAFKA_HOME")
    libs = Path(home) / "libs" if home else user_cache_path("anabranch") / _FOLDER / "libs"
    if next(libs.glob("kafka_2.13-*.jar"), None):
        return libs
    if home:
        raise BrokerUnavailable(f"ANABRANCH_KAFKA_HOME: there is no {libs}/kafka_2.13-*.jar")
    try:
        with Screen(stderr=True).status(f"fetching Apache Kafka {KAFKA_VERSION} (45 MB, once)"):
            _fetch(libs)
    except OSError as error:
        raise BrokerUnavailable(
            f"Kafka cannot be kept in {libs}: {error.strerror}; set XDG_CACHE_HOME to a folder "
            f"that can be written, or ANABRANCH_KAFKA_HOME to one with a Kafka in it"
        ) from error
    return libs


def _fetch(libs: Path) -> None:
    """Fetch beside the place and move there at once: two may fetch, none sees half a folder."""
    maven = shutil.which("mvn")
    if maven is None:
        raise BrokerUnavailable(f"Apache Kafka has to be fetched with Maven: {_INSTALL_MAVEN}")
    libs.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=libs.parent) as folder:
        pom, new = Path(folder, "pom.xml"), Path(folder, "libs")
        pom.write_text(_POM)
        goal = ["dependency:copy-dependencies", f"-DoutputDirectory={new}"]
        got = subprocess.run(
            [maven, "-B", "-q", "-f", str(pom), *goal],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=FETCH_TIMEOUT_S,
            check=False,
        )
        if got.returncode:
            wrong = [line for line in got.stdout.splitlines() if "ERROR" in line]
            raise BrokerUnavailable(f"Maven could not fetch Apache Kafka: {' '.join(wrong[:2])}")
        try:
            new.rename(libs)
        except OSError:
            if not libs.is_dir():
                raise
