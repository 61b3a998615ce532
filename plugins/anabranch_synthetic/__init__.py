"""Layers that behave as they are told: for tests, benchmarks and trying things out.

    [layers.slow]
    plugin = "synthetic"
    latency = "lognormal"
    latency_ms = 80
    sigma = 0.5

What such a layer says is a pure function of (name, type, scope, params, shard, limit), so a
checker that knows the question knows the answer (`expected_items`). How it behaves (latency,
errors, hanging) is a seeded sequence of draws, so a retry may fare better than the first try.
"""

from anabranch_synthetic.content import expected_items
from anabranch_synthetic.layer import Synthetic, SyntheticConfig

__all__ = ["Synthetic", "SyntheticConfig", "expected_items"]
