"""Which member owns which partition: rendezvous hashing over names, balanced within one."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

__all__ = ["assign"]


def assign(partitions: int, members: Sequence[str]) -> dict[str, list[int]]:
    """Owners of partitions 0..`partitions`-1, a pure function of the members' names.

    Every pair of partition and member has a weight (highest random weight, Thaler and
    Ravishankar 1998); pairs are served from the highest down, each member up to its share. A
    join or a leave moves about partitions/members of them.
    """
    owned: dict[str, list[int]] = {member: [] for member in members}
    if not owned:
        return owned
    share, extra = divmod(partitions, len(owned))
    free = set(range(partitions))
    for _, partition, member in sorted(
        ((_weight(p, m), p, m) for p in range(partitions) for m in owned), reverse=True
    ):
        mine = owned[member]
        if partition not in free or len(mine) > share or (len(mine) == share and not extra):
            continue
        extra -= len(mine) == share
        mine.append(partition)
        free.discard(partition)
    return {member: sorted(numbers) for member, numbers in owned.items()}


def _weight(partition: int, member: str) -> bytes:
    return blake2b(f"{partition}\0{member}".encode(), digest_size=8).digest()
