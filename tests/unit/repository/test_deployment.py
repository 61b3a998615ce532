"""docker-compose.yml and otel-collector.yaml refer only to what is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from ruamel.yaml import YAML

from anabranch.config import settings
from anabranch.kafka.topics import topic_specs
from anabranch.layers.loading import load_layers

ROOT = Path(__file__).parents[3]


def read(name: str) -> Any:
    return YAML(typ="safe").load(ROOT / name)


@pytest.fixture(scope="module")
def compose() -> Any:
    return read("docker-compose.yml")


@pytest.fixture(scope="module")
def collector() -> Any:
    return read("otel-collector.yaml")


def ours(compose: Any) -> dict[str, Any]:
    return {name: s for name, s in compose["services"].items() if "build" in s}


def port(endpoint: str) -> int:
    return int(endpoint.rsplit(":", 1)[1])


class TestCompose:
    def test_images_are_pinned(self, compose: Any) -> None:
        for name, service in compose["services"].items():
            tag = service["image"].partition(":")[2]
            assert tag == "local" if "build" in service else tag[:1].isdigit(), name

    def test_services_depend_on_services(self, compose: Any) -> None:
        for service in compose["services"].values():
            assert set(service.get("depends_on", ())) <= set(compose["services"])

    def test_who_is_waited_for_to_be_healthy_has_a_health_check(self, compose: Any) -> None:
        waited = {
            name
            for service in ours(compose).values()
            for name, how in service["depends_on"].items()
            if how["condition"] == "service_healthy"
        }
        assert waited == {"kafka"}
        assert "healthcheck" in compose["services"]["kafka"]

    def test_files_that_are_mounted_exist(self, compose: Any) -> None:
        mounts = [v for s in compose["services"].values() for v in s.get("volumes", ())]
        sources = [mount.split(":")[0] for mount in mounts]
        assert sources
        for source in sources:
            assert source in compose["volumes"] or (ROOT / source).is_file(), source

    def test_ports_are_open_to_this_machine_only(self, compose: Any) -> None:
        ports = [p for s in compose["services"].values() for p in s.get("ports", ())]
        assert ports
        assert all(published.startswith("127.0.0.1:") for published in ports)

    def test_the_configuration_is_one_and_names_the_broker_inside(self, compose: Any) -> None:
        config = settings.load(ROOT / "examples/compose.toml", environ={})
        listeners = compose["services"]["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
        assert f"INSIDE://{config.kafka.bootstrap}" in listeners.split(",")

    def test_the_worker_serves_every_group_of_the_configuration(self, compose: Any) -> None:
        config = settings.load(ROOT / "examples/compose.toml", environ={})
        command = compose["services"]["worker"]["command"]
        assert (command[command.index("--group") + 1],) == config.groups
        assert any(".io.critical" in topic for topic in topic_specs(config, config.groups))

    def test_its_layers_can_be_built_and_answer_its_types(self) -> None:
        config = settings.load(ROOT / "examples/compose.toml", environ={})
        built = {spec.layer.name for spec in load_layers(config)}
        assert built == set(config.layers) == set(config.types["factual"].layers)

    def test_commands_are_commands(self, compose: Any) -> None:
        from anabranch.cli import COMMANDS

        assert {service["command"][0] for service in ours(compose).values()} <= set(COMMANDS)


class TestCollector:
    def test_pipelines_use_what_is_configured_and_nothing_is_left_unused(
        self, collector: Any
    ) -> None:
        for kind in ("receivers", "processors", "exporters"):
            used = {
                name for p in collector["service"]["pipelines"].values() for name in p.get(kind, ())
            }
            assert used == set(collector[kind])

    def test_the_memory_limiter_comes_first(self, collector: Any) -> None:
        for pipeline in collector["service"]["pipelines"].values():
            assert pipeline["processors"][0] == "memory_limiter"

    def test_instances_send_to_where_it_listens(self, compose: Any, collector: Any) -> None:
        protocols = collector["receivers"]["otlp"]["protocols"]
        for service in ours(compose).values():
            environment = service["environment"]
            target = urlsplit(environment["OTEL_EXPORTER_OTLP_ENDPOINT"])
            listens = protocols[environment["OTEL_EXPORTER_OTLP_PROTOCOL"]]["endpoint"]
            assert target.hostname == "otel-collector"
            assert target.port == port(listens)

    def test_it_exports_to_a_service_of_the_compose_file(
        self, compose: Any, collector: Any
    ) -> None:
        host = collector["exporters"]["otlp_grpc/jaeger"]["endpoint"].split(":")[0]
        assert host in compose["services"]
