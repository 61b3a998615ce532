"""Who is there and what they count, folded from `health` by somebody who looks from outside.

Clocks of different machines are not compared: whoever is alive says so each second, so it is
enough to listen for a moment. Asked of are those whose last word is nearly as late as the
latest of all.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from anabranch.contract.bounds import remember
from anabranch.contract.codec import decode_health
from anabranch.contract.events import ComponentStats, LayerDescriptor, MemberHealth
from anabranch.errors import DecodeError
from anabranch.kafka.transport import Record

__all__ = ["ClusterView"]

LATELY_MS: Final = 10_000
"""Members whose last record is further from the latest one than this have long been gone."""
MAX_HEARD: Final = 10_000
MAX_STATS: Final = 1_024
MAX_LAYERS: Final = 1_024
"""Of more, those that were longest not heard of are forgotten."""


class _Heard(NamedTuple):
    member: MemberHealth
    timestamp: int
    alive: bool


class ClusterView:
    """A fold over `health`; what comes while one listens proves that its sender is alive."""

    def __init__(self) -> None:
        self._announced: dict[bytes, LayerDescriptor] = {}
        self.stats: dict[str, ComponentStats] = {}
        """By instance, of those that are gone too."""
        self._heard: dict[bytes, _Heard] = {}
        self._latest = 0
        """When the last word was said; clocks may have been set back since others spoke."""

    def learn(self, record: Record, *, alive: bool) -> None:
        """Take a record; `alive` if it was written after the listening began."""
        key = record.key or b""
        if not record.value:
            self._withdraw(key)
            return
        try:
            health = decode_health(record.value)
        except DecodeError:
            return  # of a later version, or nobody's
        if isinstance(health, MemberHealth):
            remember(self._heard, key, _Heard(health, record.timestamp, alive), MAX_HEARD)
            self._latest = record.timestamp
        elif isinstance(health, ComponentStats):
            remember(self.stats, health.instance, health, MAX_STATS)
        else:
            remember(self._announced, key, health, MAX_LAYERS)

    @property
    def layers(self) -> dict[str, LayerDescriptor]:
        """What is announced, by name; of several groups' the latest."""
        return {layer.layer: layer for layer in self._announced.values()}

    def _withdraw(self, key: bytes) -> None:
        self._heard.pop(key, None)
        self._announced.pop(key, None)
        self.stats.pop(key.decode(errors="replace").removeprefix("stats/"), None)

    def begin(self) -> None:
        """Listen anew: nobody has proved to be alive."""
        self._heard = {key: heard._replace(alive=False) for key, heard in self._heard.items()}

    def live(self, role: Literal["coordinator", "worker"]) -> list[MemberHealth]:
        """Members that were heard, by name."""
        return [heard.member for heard in self._lately(role) if heard.alive]

    def silent(self, role: Literal["coordinator", "worker"]) -> list[str]:
        """Names of members that were there lately and have not been heard."""
        return [heard.member.instance for heard in self._lately(role) if not heard.alive]

    @property
    def heard_all(self) -> bool:
        """Whether everybody who was there lately has been heard, coordinators' counts too."""
        counted = {member.instance for member in self.live("coordinator")} <= self.stats.keys()
        return counted and not self.silent("coordinator") and not self.silent("worker")

    def _lately(self, role: str) -> list[_Heard]:
        found = [
            heard
            for heard in self._heard.values()
            if heard.member.role == role
            and heard.member.state != "stopped"
            and (heard.alive or abs(heard.timestamp - self._latest) <= LATELY_MS)
        ]
        return sorted(found, key=lambda heard: heard.member.instance)
