"""Solves a generalized assignment instance with the engine's optimiser, no special solver."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mumian_core import solve_assignment
from mumian_core.v1.optimize_pb2 import AssignmentRequest, AssignmentResponse, Stop, StopReason

from mumian_orchestrator.bench.gap.orlib import GapInstance


@dataclass(frozen=True)
class GapResult:
    """What the optimiser found within its time.

    Args:
        cost: of all jobs that have an agent.
        unassigned_jobs: for which it found no room; the gaps are unset if there are any.
        bound: no assignment of all jobs costs less.
        gap_to_bound_percent: of the bound.
        best_known: the best cost that anybody has published; None where the instance is not listed.
        progress: seconds, cost and bound, each time that one of them got better.
    """

    instance: str
    agents: int
    jobs: int
    time_limit_seconds: float
    seconds: float
    stop_reason: str
    cost: int
    unassigned_jobs: int
    bound: int
    gap_to_bound_percent: float | None
    best_known: int | None
    gap_to_best_known_percent: float | None
    progress: Sequence[tuple[float, int, int]]

    def figures(self) -> Iterator[tuple[str, float, str]]:
        """Name, value and unit of each."""
        yield "cost", self.cost, "cost"
        yield "unassigned", self.unassigned_jobs, "jobs"
        yield "bound", self.bound, "cost"
        if self.gap_to_bound_percent is not None:
            yield "gap_to_bound", self.gap_to_bound_percent, "%"
        if self.best_known is not None:
            yield "best_known", self.best_known, "cost"
        if self.gap_to_best_known_percent is not None:
            yield "gap_to_best_known", self.gap_to_best_known_percent, "%"


def solve(
    instance: GapInstance, best_known: int | None, seconds: float, threads: int, seed: int
) -> GapResult:
    """Assign the jobs; the answer is checked against the instance before anything is said of it."""
    request = AssignmentRequest(
        agents=instance.agents,
        tasks=instance.jobs,
        cost=instance.cost,
        weight=instance.weight,
        capacity=instance.capacity,
        stop=Stop(time_limit_ms=max(1, round(seconds * 1000)), threads=threads),
        seed=seed,
    )
    started = time.perf_counter()
    answer = AssignmentResponse.FromString(solve_assignment(request.SerializeToString()))
    took = time.perf_counter() - started
    _check(instance, answer)
    complete = answer.unplaced_task_count == 0
    return GapResult(
        instance=instance.name,
        agents=instance.agents,
        jobs=instance.jobs,
        time_limit_seconds=seconds,
        seconds=took,
        stop_reason=StopReason.Name(answer.stop_reason).removeprefix("STOP_REASON_").lower(),
        cost=answer.cost,
        unassigned_jobs=answer.unplaced_task_count,
        bound=answer.bound,
        gap_to_bound_percent=_percent_above(answer.cost, answer.bound) if complete else None,
        best_known=best_known,
        gap_to_best_known_percent=_percent_above(answer.cost, best_known)
        if complete and best_known
        else None,
        progress=[
            (p.elapsed_ms / 1000, p.objective_microcny_per_hour, p.bound_microcny_per_hour)
            for p in answer.progress
        ],
    )


def _percent_above(cost: int, reference: int) -> float | None:
    return 100 * (cost - reference) / reference if reference > 0 else None


def _check(instance: GapInstance, answer: AssignmentResponse) -> None:
    """The cost and the loads, added up anew."""
    cost = 0
    loads = [0] * instance.agents
    for job, agent in enumerate(answer.agent):
        if agent >= 0:
            cost += instance.cost[agent * instance.jobs + job]
            loads[agent] += instance.weight[agent * instance.jobs + job]
    unassigned = sum(agent < 0 for agent in answer.agent)
    overloaded = [i for i, load in enumerate(loads) if load > instance.capacity[i]]
    claimed = (answer.cost, answer.unplaced_task_count, len(answer.agent))
    if overloaded or claimed != (cost, unassigned, instance.jobs):
        raise AssertionError(
            f"{instance.name}: the optimiser claims cost {answer.cost}, {answer.unplaced_task_count} out; "
            f"its assignment costs {cost}, leaves {unassigned} and overloads agents {overloaded}"
        )
