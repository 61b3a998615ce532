"""A broker in memory, with processes that can be killed and a network that can misbehave."""

from anabranch.testing.memory.broker import MemoryBroker, MemoryTransport
from anabranch.testing.memory.network import Network

__all__ = ["MemoryBroker", "MemoryTransport", "Network"]
