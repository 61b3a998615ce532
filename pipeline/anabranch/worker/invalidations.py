"""Layers that know better: what they say is true no more is forgotten wherever it is cached.

A layer has a say over its own results only. What it says is gathered and sent as orders on
`control`, one a second for each layer at most.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import suppress
from typing import Final

from anabranch.contract.codec import encode
from anabranch.contract.events import ControlRecord
from anabranch.contract.keys import order_key
from anabranch.errors import BrokerError, BrokerUnavailable
from anabranch.kafka.transport import Producer
from anabranch.layers.api import Invalidate
from anabranch.runtime.supervisor import Stage, signalled

__all__ = ["Invalidator"]

log = logging.getLogger(__name__)

_INTERVAL_S: Final = 1.0
_MOST_TAGS: Final = 100
"""In one order; of more, all results of the layer are forgotten."""
_MOST_CHARS: Final = 1_024


class Invalidator:
    """Gathers what the layers of a worker want forgotten, and sends it.

    Args:
        topic: `control`.
    """

    def __init__(self, topic: str, producer: Producer) -> None:
        self._topic = topic
        self._producer = producer
        self._lock = threading.Lock()
        self._waiting: dict[str, set[str] | None] = {}
        """Tags by layer; None is everything."""
        self._filled = asyncio.Event()
        self._sending = asyncio.Lock()
        self.sent = 0

    def of(self, layer: str, loop: asyncio.AbstractEventLoop) -> Invalidate:
        """What a layer is given to call, from the loop or any thread."""

        def invalidate(*tags: str) -> None:
            if not all(isinstance(tag, str) for tag in tags):
                raise TypeError(f"layers.{layer}: invalidate() takes tags, which are strings")
            with self._lock:
                self._gather(layer, tags)
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._filled.set)

        return invalidate

    async def run(self, stage: Stage) -> None:
        """Stage: send what was gathered. An order that is refused leaves results to their TTL."""
        while True:
            stage.beat()
            if not await signalled(self._filled):
                continue
            self._filled.clear()
            await self.flush()
            await asyncio.sleep(_INTERVAL_S)

    async def drain(self, timeout_s: float) -> None:
        """Send what waits, at most so long; what is left stays cached for its TTL, and is said."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.flush()
        except TimeoutError:
            log.warning("what layers invalidated at the end stays cached for its TTL")

    async def flush(self) -> None:
        """Send what waits; what the broker refuses is dropped, and said."""
        async with self._sending:
            await self._flush()

    async def _flush(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        try:
            while waiting:
                layer = next(iter(waiting))
                await self._send(layer, waiting[layer])
                del waiting[layer]
        except BrokerUnavailable as error:
            log.warning("will invalidate when the broker is back: %s", error)
            self._filled.set()
        finally:  # whatever interrupts it
            with self._lock:
                for layer, tags in waiting.items():
                    self._gather(layer, tuple(tags or ()))

    async def _send(self, layer: str, tags: set[str] | None) -> None:
        order = ControlRecord("invalidate", layer=layer, tags=sorted(tags or ()))
        value, key = encode(order), order_key(order)
        try:
            await self._producer.send_and_wait(self._topic, value, key=key, partition=0)
        except BrokerUnavailable:
            raise
        except BrokerError as error:
            log.warning("layers.%s: what it invalidates stays cached for its TTL: %s", layer, error)
        else:
            self.sent += 1

    def _gather(self, layer: str, tags: tuple[str, ...]) -> None:
        known = self._waiting.setdefault(layer, set())
        if known is None:
            return
        known.update(tags)
        if not tags or len(known) > _MOST_TAGS or not all(map(_fits, tags)):
            self._waiting[layer] = None


def _fits(tag: str) -> bool:
    """Whether an order can name it: lone surrogates are in no record."""
    return len(tag) <= _MOST_CHARS and tag.encode(errors="ignore").decode() == tag
