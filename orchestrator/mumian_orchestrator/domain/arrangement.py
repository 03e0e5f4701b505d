"""All tasks looked at together: what is asked of a view of the cluster, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mumian.api.v1.explanation_pb2 import CostBreakdown, Rejection
from mumian.api.v1.planning_pb2 import SitePrice

from mumian_orchestrator.domain.decision import PendingJob, Placement, TaskId


@dataclass(frozen=True, slots=True)
class RunningTask:
    """An allocation as a view knows it."""

    allocation_id: str
    job_id: str
    task: TaskId
    site_id: str
    node_id: str


@dataclass(frozen=True, slots=True)
class Assessment:
    """How a running task stands: its cost here and now, and the promise that does not hold, if any."""

    is_gone: bool
    cost: CostBreakdown
    broken: Rejection | None


@dataclass(frozen=True, slots=True)
class SearchLimits:
    """How long the optimiser looks, and how many running tasks it may move (None: any number).

    Args:
        time_limit_ms: 0: none.
        rounds_max: of its search, so that it finds the same on any machine; 0: any number.
    """

    time_limit_ms: int
    moves_max: int | None
    rounds_max: int = 0


@dataclass(frozen=True, slots=True)
class Problem:
    """The jobs in play with their tasks that wait, and the running tasks that may move."""

    jobs: Sequence[PendingJob]
    movable: Sequence[RunningTask]


@dataclass(frozen=True, slots=True)
class Solution:
    """The optimiser's answer. Money in micro-CNY per hour; both sums are over the tasks in play."""

    evaluation_id: str
    generation: int
    placements: Sequence[Placement]  # of tasks that wait, and of running ones that move
    moved: Mapping[str, Placement]  # by allocation id
    unplaced_task_count: int
    cost_microcny: int
    objective_microcny: int  # the cost, and more than any place costs for each task without one
    bound_microcny: int  # no solution's objective is below
    prices: Sequence[SitePrice]
