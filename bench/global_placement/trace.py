"""How a solver came nearer to the optimum, second by second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Run:
    """One solver on one instance.

    Args:
        solver: `mumian`, `cp-sat` or `highs`, with its version.
        status: what it says of its result.
        seconds: from the start to the answer.
        build_seconds: before the start, for the solver's own form of the model.
        placed_tasks: in its best solution.
        objective: micro-CNY per hour of a solution that places every task; None without one.
        bound: no such solution costs less; None when nothing was proved.
        points: seconds since the start and the cost of each better solution that places every task.
        accepted: whether the engine's verifier took every placement of the solution.
    """

    solver: str
    version: str
    status: str
    seconds: float
    build_seconds: float
    placed_tasks: int
    objective: int | None
    bound: int | None
    points: Sequence[tuple[float, int]]
    accepted: bool

    def seconds_to(self, most: float) -> float | None:
        """When it first had a solution that costs no more than this; None: never."""
        return next((seconds for seconds, cost in self.points if cost <= most), None)


def gap_percent(cost: int | None, bound: int | None) -> float | None:
    """How far the cost is above the bound, in percent of the bound; None where either is missing."""
    if cost is None or bound is None or bound <= 0:
        return None
    return 100 * (cost - bound) / bound


def best_bound(runs: Sequence[Run]) -> int | None:
    """The highest that any of them proved for this instance."""
    return max((run.bound for run in runs if run.bound is not None), default=None)
