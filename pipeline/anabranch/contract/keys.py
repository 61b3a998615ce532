"""How questions and orders are named wherever they leave the process."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from anabranch.contract.codec import encode
from anabranch.contract.events import ControlRecord

__all__ = ["digest", "order_key"]


def digest(type_: str, scope: str, params: Mapping[str, Any]) -> str:
    """SHA-256 of a question, as hex."""
    canonical = msgspec.json.encode((type_, scope, params), order="sorted")
    return hashlib.sha256(canonical).hexdigest()


def order_key(order: ControlRecord) -> bytes:
    """The compaction key of an order: its target."""
    return encode([order.layer, order.scope, order.key, sorted(order.tags)])
