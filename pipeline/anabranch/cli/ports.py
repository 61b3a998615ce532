"""Where a broker for development listens, and how other terminals learn of it."""

from __future__ import annotations

from typing import Final

from anabranch.dev.embedded import listen
from anabranch.errors import BrokerUnavailable, ConfigError

__all__ = ["chosen", "export"]

USUAL: Final = 9092
"""Where everything that is told nothing else looks for a broker."""


def chosen(asked: int | None) -> int | None:
    """The port that was asked for, else the usual one, else (None) any that is free.

    Raises:
        ConfigError: the one that was asked for cannot be had.
    """
    try:
        listen(asked or USUAL).close()
    except BrokerUnavailable as error:
        if asked is not None:
            raise ConfigError(str(error)) from error
        return None
    return asked or USUAL


def export(address: str) -> str:
    """What to say in a terminal so that every command there finds the broker."""
    return f"export ANABRANCH_KAFKA__BOOTSTRAP={address}"
