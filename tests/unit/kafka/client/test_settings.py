"""What `kafka.client` may say, and what it is told when it says something else."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

from anabranch.config.settings import KafkaConfig
from anabranch.errors import ConfigError
from anabranch.kafka.client import KafkaTransport
from anabranch.kafka.client.settings import connection

SASL = {
    "security_protocol": "SASL_PLAINTEXT",
    "sasl_mechanism": "SCRAM-SHA-256",
    "sasl_plain_username": "alice",
    "sasl_plain_password": "hush",
}


def settings(**client: Any) -> dict[str, Any]:
    return connection(KafkaConfig(bootstrap="b:1", request_timeout_ms=77, client=client))


def test_what_passes_through_stands_beside_our_own() -> None:
    assert settings(**SASL, metadata_max_age_ms=1_000) == {
        "bootstrap_servers": "b:1",
        "request_timeout_ms": 77,
        "metadata_max_age_ms": 1_000,
        **SASL,
    }


def test_an_unknown_key_is_named_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"kafka\.client\.acks.*sasl_mechanism.*ssl_cafile"):
        settings(acks=1)


def test_the_transport_refuses_before_anything_is_connected() -> None:
    with pytest.raises(ConfigError, match=r"kafka\.client\.acks"):
        KafkaTransport(KafkaConfig(client={"acks": 1}))


@pytest.mark.parametrize("protocol", ["SSL", "SASL_SSL"])
def test_tls_checks_certificate_and_host_unless_told_otherwise(protocol: str) -> None:
    checked = settings(security_protocol=protocol)["ssl_context"]
    assert (checked.verify_mode, checked.check_hostname) == (ssl.CERT_REQUIRED, True)
    unchecked = settings(security_protocol=protocol, ssl_check_hostname=False)["ssl_context"]
    assert (unchecked.verify_mode, unchecked.check_hostname) == (ssl.CERT_REQUIRED, False)


def test_without_tls_there_is_no_context() -> None:
    assert "ssl_context" not in settings(**SASL)


@pytest.mark.parametrize("key", ["ssl_cafile", "ssl_certfile"])
def test_a_tls_file_that_is_missing_is_named(key: str, tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.pem")
    with pytest.raises(ConfigError, match=r"missing\.pem"):
        settings(security_protocol="SSL", **{key: missing})


def test_a_tls_password_is_never_told(tmp_path: Path) -> None:
    certificate = tmp_path / "certificate.pem"
    certificate.write_text("no certificate")
    with pytest.raises(ConfigError, match=r"certificate\.pem") as refused:
        settings(security_protocol="SSL", ssl_certfile=str(certificate), ssl_password="hush-hush")
    assert "hush-hush" not in str(refused.value)


def test_tls_files_without_tls_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"security_protocol.*SASL_SSL"):
        settings(**SASL, ssl_cafile="ca.pem")


@pytest.mark.parametrize(
    "client",
    [
        {"security_protocol": "TLS"},
        {**SASL, "sasl_mechanism": "MAGIC"},
        {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN"},
    ],
)
@pytest.mark.parametrize("kind", ["producer", "consumer", "reader", "admin"])
async def test_what_aiokafka_refuses_is_an_error_of_the_configuration(
    client: dict[str, Any], kind: str
) -> None:
    transport: Any = KafkaTransport(KafkaConfig(bootstrap="127.0.0.1:1", client=client))
    arguments = {"producer": ["p"], "consumer": ["c", "g", ["t"], None], "reader": ["r"]}
    started = getattr(transport, kind)(*arguments.get(kind, []))
    with pytest.raises(ConfigError, match=r"kafka\.client"):
        await started.start()


def test_what_comes_from_variables_is_a_number_or_a_text_as_aiokafka_wants_it() -> None:
    found = settings(**{**SASL, "sasl_plain_password": "12345678"}, retry_backoff_ms="200")
    assert found["sasl_plain_password"] == "12345678"
    assert found["retry_backoff_ms"] == 200
    tls = settings(security_protocol="SSL", ssl_check_hostname="false")["ssl_context"]
    assert tls.check_hostname is False


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("sasl_plain_password", 12345678, "expected `str`, got `int`; write it in quotes"),
        ("retry_backoff_ms", "soon", "expected `int`, got `str`"),
        ("ssl_check_hostname", "perhaps", "expected `bool`, got `str`"),
    ],
)
def test_what_is_of_the_wrong_kind_is_named(key: str, value: Any, what: str) -> None:
    with pytest.raises(ConfigError) as raised:
        settings(**{key: value})
    assert str(raised.value) == f"kafka.client.{key}: {what}"
