"""The coordinator. Follow a query: service -> partition -> outbox -> publisher; ownership and
recovery say whose partition it is."""

from anabranch.coordinator.service import Coordinator

__all__ = ["Coordinator"]
