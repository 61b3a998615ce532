"""For plugin authors and for our own tests: a broker in memory, and time that costs nothing."""

from anabranch.kafka.transport import Record
from anabranch.testing.memory import MemoryBroker, MemoryTransport, Network
from anabranch.testing.virtual_time import DeadlockError, VirtualClock, VirtualTimeLoop, run

__all__ = [
    "DeadlockError",
    "MemoryBroker",
    "MemoryTransport",
    "Network",
    "Record",
    "VirtualClock",
    "VirtualTimeLoop",
    "run",
]
