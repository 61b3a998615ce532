"""Whether a row of the original's table holds."""

from __future__ import annotations

import pytest
from original_table import CLAIMS, Bounds, Claim, at_most, operation, verdict
from results import Spread


def test_rows_are_named_once() -> None:
    assert len({claim.row for claim in CLAIMS}) == len(CLAIMS)


@pytest.mark.parametrize(
    ("bounds", "figures", "said"),
    [
        (at_most(5, 10), {"ms": 5.0, "times": 10.0}, "holds"),
        (at_most(5, 10), {"ms": 5.1, "times": 12.0}, "DOES NOT HOLD (ms)"),
        (at_most(5, 10), {"ms": 7.0, "times": 9.0}, "DOES NOT HOLD (ms, times)"),
        (operation(2, 500), {"ms": 1.9, "per_s": 499.0}, "DOES NOT HOLD (per_s)"),
        ({"times": (3.0, 4.0)}, {"times": 3.5}, "holds"),
        ({"times": (3.0, 4.0)}, {"times": 2.9}, "DOES NOT HOLD (times)"),
        ({"times": (3.0, 4.0)}, {"times": 4.1}, "more than claimed"),
    ],
)
def test_a_row_holds_by_its_medians(bounds: Bounds, figures: dict[str, float], said: str) -> None:
    spreads = {name: Spread(0.0, median, 1e9) for name, median in figures.items()}
    assert verdict(Claim("row", "", bounds, CLAIMS[0].play), spreads) == said
