"""What a simulated client asks: a seeded mix of everything that the contract allows, and worse."""

from __future__ import annotations

import random
from typing import Any, Final

from sim_truth import LAYERS

from anabranch.contract.codec import encode
from anabranch.contract.events import Query

__all__ = ["GARBAGE", "POISON", "REPLY_TOPIC", "random_query"]

REPLY_TOPIC: Final = "app.replies"
POISON: Final = "poison"
"""A parameter that crashes every coordinator that starts the query."""

_STRATEGIES: Final[tuple[Any, ...]] = (
    "auto", "auto", "auto", "cache", "sequential", "parallel", "distributed",
)  # fmt: skip

GARBAGE: Final = (
    b"",
    b"no JSON",
    b"[1, 2, 3]",
    b"[" * 200,
    b'{"id": "x"}',
    encode({"id": "no-layers", "type": "of-the-unknown"}),
    encode({"id": "wrong", "type": "factual", "timeout_ms": 0}),
    encode({"id": "bad-reply", "type": "factual", "reply_to": "not.allowed"}),
)


def random_query(rng: random.Random, number: int) -> Query:
    """A query; few different questions, so that caches and repeats matter."""
    kind = rng.choice(["factual", "planning", "temporal", "procedural", "meta", "custom"])
    return Query(
        id=f"q{number}",
        type=kind,
        params={"text": rng.choice("abc"), "n": rng.randint(0, 1)},
        layers=rng.sample(sorted(LAYERS), rng.randint(1, 4)) if kind == "custom" else None,
        scope=rng.choice(["", "", "tenant"]),
        priority=rng.choice(["critical", "high", "medium", "low"]),
        timeout_ms=rng.choice([None, 60, 300, 1000, 3000]),
        limit=rng.choice([1, 5, 20]),
        min_coverage=rng.choice([1.0, 1.0, 0.5, 0.0]),
        max_age_ms=rng.choice([None, None, 0, 2000]),
        strategy=rng.choice(_STRATEGIES),
        reply_to=REPLY_TOPIC if rng.random() < 0.1 else None,
    )
