"""Why a plan was taken: one sentence with the numbers that were compared."""

from __future__ import annotations

from typing import Final

from anabranch.select.plans import Plan, Plans

__all__ = ["FASTEST", "NEXT_BEST", "apart", "reason"]

MAX_DECIMALS: Final = 6
FASTEST: Final = "it is expected to be fastest"
NEXT_BEST: Final = "SEQUENTIAL cannot start, and this is next best"


def reason(plans: Plans, plan: Plan, why: str) -> str:
    """One sentence, with the numbers that were compared."""
    what = " and ".join(
        [f"{part.arm} for {', '.join(part.layers)} ({part.estimated_ms:.0f} ms)" for part in plan]
    )
    workers = [f"{group} has {'one' if n else 'no'} worker" for group, n in plans.workers.items()]
    return f"{what}: {why} ({'; '.join([_numbers(plans, plan, why), *workers])})"


def _numbers(plans: Plans, plan: Plan, why: str) -> str:
    """Estimates; where plans were compared, dearer for arms whose estimates err more than its."""
    costs = list(plans.estimates.values())
    if why in (FASTEST, NEXT_BEST):
        scale, compared = plans.risk(plan), list(plans.by_arm.values())
        if plan not in compared:
            compared.append(plan)
        costs = [plans.weighed_ms(other) / scale for other in compared]
    alone, together, spread, *others = apart(*costs)
    this = "".join([f", this {ms}" for ms in others])
    return f"expected ms: sequential {alone}, parallel {together}, distributed {spread}{this}"


def apart(*numbers: float, decimals: int = 0) -> list[str]:
    """Numbers as text, with as many decimals as it takes to tell different ones apart."""
    for places in range(decimals, MAX_DECIMALS + 1):
        form = f".{places}f"
        texts = [format(number, form) for number in numbers]
        distinct = len(set(texts))
        if distinct == len(texts) or distinct == len(set(numbers)):
            break
    return texts
