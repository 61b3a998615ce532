"""The coordinator. `service` runs what `wiring` puts together; docs/design.md follows a query.

Rooms, each of which uses only those before it: `progress` (how far a partition is), `query` (the
life of a query; pure, as is `progress`), `delivery` (how answers, tasks and commits go out),
`partitions` (whose partition it is), `background` (beside the work).
"""

from anabranch.coordinator.service import Coordinator

__all__ = ["Coordinator"]
