"""What a simulated client asks: a seeded mix of everything that the contract allows, and worse."""

from __future__ import annotations

import random
from typing import Any, Final

from anabranch.events import Query, encode
from anabranch.layers import LayerSpec
from anabranch_synthetic import Synthetic, SyntheticConfig

__all__ = ["GARBAGE", "REPLY_TOPIC", "layers_of", "random_query"]

REPLY_TOPIC: Final = "app.replies"

_LAYERS: Final[dict[str, tuple[str, int, float, dict[str, Any]]]] = {
    "semantic": ("io", 1, 20.0, {"items": 10}),
    "graph": ("io", 1, 60.0, {"items": 4, "error_rate": 0.05}),
    "episodic": ("cpu", 1, 120.0, {"items": 25, "hang_rate": 0.05}),
    "procedural": ("cpu", 2, 40.0, {"items": 6}),
}
"""Group, shards, median latency in milliseconds, and the rest."""

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


def layers_of(group: str, seed: int, slower: float = 1.0) -> list[LayerSpec]:
    """The layers of a worker of that group; the seed is that worker's own."""
    return [
        LayerSpec(
            Synthetic(
                name,
                SyntheticConfig(
                    latency="lognormal",
                    latency_ms=slower * typical_ms,
                    item_bytes=8,
                    seed=seed,
                    **how,
                ),
            ),
            group=group,
            shards=shards,
        )
        for name, (its_group, shards, typical_ms, how) in _LAYERS.items()
        if its_group == group
    ]


def random_query(rng: random.Random, number: int) -> Query:
    """A query; few different questions, so that caches and repeats matter."""
    kind = rng.choice(["factual", "planning", "temporal", "procedural", "meta", "custom"])
    return Query(
        id=f"q{number}",
        type=kind,
        params={"text": rng.choice("abc"), "n": rng.randint(0, 1)},
        layers=rng.sample(sorted(_LAYERS), rng.randint(1, 4)) if kind == "custom" else None,
        scope=rng.choice(["", "", "tenant"]),
        priority=rng.choice(["critical", "high", "medium", "low"]),
        timeout_ms=rng.choice([None, 60, 300, 1000, 3000]),
        limit=rng.choice([1, 5, 20]),
        min_coverage=rng.choice([1.0, 1.0, 0.5, 0.0]),
        max_age_ms=rng.choice([None, None, 0, 2000]),
        strategy=rng.choice(_STRATEGIES),
        reply_to=REPLY_TOPIC if rng.random() < 0.1 else None,
    )
