"""The first connection to a broker, which may still be on its way up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from aiokafka import errors as kafka

from anabranch.config.settings import KafkaConfig
from anabranch.errors import BrokerUnavailable
from anabranch.kafka.availability import absence, nobody_answers, refusal

__all__ = ["Bootstrap"]

RETRY_S: Final = 0.5


class Bootstrap:
    """One client's way to the broker."""

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config
        self._why: str | None = None

    async def wait(self, start: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Start a client once somebody is there; the caller bounds it.

        Raises:
            KafkaConnectionError: somebody is there, and does not take us.
        """
        known = absence(self._config.bootstrap)
        while True:
            try:
                await start()
            except kafka.KafkaConnectionError:
                self._why = await asyncio.to_thread(refusal, self._config.bootstrap)
                if self._why is None:
                    raise
                known.began(0.0, self._config.request_timeout_ms / 1000, self._why)
                await asyncio.sleep(RETRY_S)
            else:
                known.ended()
                return

    def nobody_answers(self, error: Exception) -> BrokerUnavailable:
        """Says where, why, and what to do."""
        return nobody_answers(self._config, self._why or str(error) or type(error).__name__)
