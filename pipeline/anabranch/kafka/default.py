"""The transport that is used where nobody hands one in."""

from __future__ import annotations

from anabranch.config.settings import KafkaConfig
from anabranch.kafka.transport import Transport

__all__ = ["default_transport"]


def default_transport(config: KafkaConfig) -> Transport:
    """Clients of the broker at `config.bootstrap`.

    Raises:
        ConfigError: `kafka.client` has a setting that there is not, or a file that cannot be read.
    """
    from anabranch.kafka.client import KafkaTransport  # the client library is loaded when used

    return KafkaTransport(config)
