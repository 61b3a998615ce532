"""For plugin authors and for our own tests: a broker in memory, and time that costs nothing."""

from anabranch.testing.memory import MemoryBroker, MemoryRecord, MemoryTransport, Network
from anabranch.testing.virtual_time import DeadlockError, VirtualClock, VirtualTimeLoop, run

__all__ = [
    "DeadlockError",
    "MemoryBroker",
    "MemoryRecord",
    "MemoryTransport",
    "Network",
    "VirtualClock",
    "VirtualTimeLoop",
    "run",
]
