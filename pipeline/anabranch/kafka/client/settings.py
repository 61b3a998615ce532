"""Connection settings: ours, and those of `kafka.client` that pass through."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from aiokafka.helpers import create_ssl_context

from anabranch.config.settings import KafkaConfig
from anabranch.errors import ConfigError

__all__ = ["connection"]

_TLS: Final = {
    "ssl_cafile": "cafile",
    "ssl_certfile": "certfile",
    "ssl_keyfile": "keyfile",
    "ssl_password": "password",
}
_FILES: Final = ("cafile", "certfile", "keyfile")
_PASSED: Final = {
    "security_protocol": str,
    "sasl_mechanism": str,
    "sasl_plain_username": str,
    "sasl_plain_password": str,
    "sasl_kerberos_service_name": str,
    "sasl_kerberos_domain_name": str,
    "connections_max_idle_ms": int,
    "metadata_max_age_ms": int,
    "retry_backoff_ms": int,
}
_KINDS: Final = {**_PASSED, **dict.fromkeys(_TLS, str), "ssl_check_hostname": bool}


def connection(config: KafkaConfig) -> dict[str, Any]:
    """Keyword arguments that every aiokafka client takes.

    Raises:
        ConfigError: naming the key under `kafka.client` and what may stand there.
    """
    given = {key: _converted(key, value) for key, value in config.client.items()}
    tls = {ours: given.pop(name) for name, ours in _TLS.items() if name in given}
    check_hostname = given.pop("ssl_check_hostname", True)
    for key in given:
        if key not in _PASSED:
            known = ", ".join(sorted(_KINDS))
            raise ConfigError(f"kafka.client.{key}: there is no such setting; write one of {known}")
    protocol = str(given.get("security_protocol", "PLAINTEXT"))
    if protocol.endswith("SSL"):
        given["ssl_context"] = _tls_context(tls, check_hostname=check_hostname)
    elif tls:
        raise ConfigError(
            f"kafka.client.security_protocol: is {protocol}, though TLS is set up; "
            f"write SSL or SASL_SSL"
        )
    return {
        "bootstrap_servers": config.bootstrap,
        "request_timeout_ms": config.request_timeout_ms,
        **given,
    }


def _converted(key: str, value: Any) -> Any:
    """A variable is text, also where a number is wanted; a number is no text."""
    if key not in _KINDS:
        return value
    try:
        return msgspec.convert(value, _KINDS[key], strict=False)
    except msgspec.ValidationError as error:
        what = str(error)
        advice = "; write it in quotes" if _KINDS[key] is str else ""
        raise ConfigError(f"kafka.client.{key}: {what[0].lower()}{what[1:]}{advice}") from None


def _tls_context(tls: dict[str, Any], *, check_hostname: bool) -> Any:
    try:
        context = create_ssl_context(**tls)
    except (OSError, TypeError, ValueError) as error:
        files = [str(tls[name]) for name in _FILES if name in tls]  # never the password
        raise ConfigError(
            f"kafka.client: TLS cannot be set up with {', '.join(files) or 'these settings'}: "
            f"{error}"
        ) from error
    context.check_hostname = check_hostname
    return context
