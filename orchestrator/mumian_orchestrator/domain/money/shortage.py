"""What a budget lacks, in words and as the smallest top-up that would do."""

from __future__ import annotations

from collections.abc import Mapping

from mumian.api.v1.money_pb2 import Shortage

_MICRO = 10**6


def shortage_of(
    needed_microcny: int, left_microcny: Mapping[str, int], task_count: int, window_ms: int
) -> Shortage | None:
    """What is missing; None: nothing is.

    Args:
        needed_microcny: of the tenant, for the next task, or for a whole gang.
        left_microcny: of each limited period, "2026-11" and "2026".
        task_count: how many tasks wait for it.
        window_ms: how long that pays for.
    """
    missing = {
        period: needed_microcny - left for period, left in left_microcny.items() if left < needed_microcny
    }
    if not missing:
        return None
    made = Shortage(task_count=task_count, needed_microcny=needed_microcny, window_ms=window_ms)
    for period, microcny in missing.items():
        if len(period) == 4:
            made.year_top_up_microcny = microcny
        else:
            made.month_top_up_microcny = microcny
    have = " and ".join(
        f"CNY {cny(max(0, left_microcny[period]))} is left for {period}" for period in missing
    )
    top_up = " and ".join(f"CNY {cny(microcny)} more for {period}" for period, microcny in missing.items())
    tasks = "1 task waits" if task_count == 1 else f"{task_count} tasks wait"
    made.summary = (
        f"{tasks} for money: {top_up} would do; the next {_span(window_ms)} of work costs "
        f"CNY {cny(needed_microcny)}, and {have}"
    )
    return made


def cny(microcny: int) -> str:
    """In CNY without needless zeros, never less than it is."""
    whole, rest = divmod(microcny, _MICRO)
    return f"{whole}.{rest:06d}".rstrip("0").rstrip(".")


def _span(ms: int) -> str:
    minutes = ms / 60_000
    return f"{minutes / 60:g} h" if minutes >= 60 and ms % 3_600_000 == 0 else f"{minutes:.4g} min"
