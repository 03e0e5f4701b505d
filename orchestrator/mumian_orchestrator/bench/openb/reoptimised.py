"""The replay with a global optimisation after every so many arrivals.

The tasks arrive and are placed online as in `replay`. Those that find no place wait. After every
so many arrivals the optimiser may move what runs, to make room for what waits: it places whatever
asks for most GPU. After the last arrivals there is none.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from mumian_core import Engine
from mumian_core.v1 import engine_pb2, optimize_pb2

from mumian_orchestrator.bench.openb.messages import (
    GROUP,
    Objective,
    allocation_of,
    cluster_of,
    job_of,
    policy_of,
)
from mumian_orchestrator.bench.openb.replay import (
    Arrivals,
    allocated_percent,
    arrivals,
    capacity_milli,
    place,
)
from mumian_orchestrator.bench.openb.trace import TraceNode, TraceTask

# Counted in rounds and not in seconds, so that every machine finds the same.
ROUNDS = 200
HIGHEST_PRIORITY = 1000


@dataclass(frozen=True)
class ReoptimisedReplay:
    """One run.

    Args:
        allocated_percent: of the cluster's GPUs, by percent of arrived demand.
        moves: running tasks that went to another node, in all optimisations.
        seconds: of all optimisations.
    """

    seed: int
    placed: int
    allocated_percent: dict[int, float]
    optimisations: int
    moves: int
    seconds: float


def replay_reoptimised(
    nodes: Sequence[TraceNode],
    tasks: Sequence[TraceTask],
    seed: int,
    order: Arrivals = Arrivals.DRAWN,
    *,
    every: int,
) -> ReoptimisedReplay:
    """Place the arrivals of one seed by PACK, and optimise after each `every` of them.

    Raises:
        ReplayError: there would be too many arrivals.
    """
    arriving = arrivals(nodes, tasks, seed, order)
    run = _Run(nodes, tasks, arriving)
    allocated_milli: list[int] = []
    optimisations = moves = 0
    seconds = 0.0
    for first in range(0, len(arriving), every):
        numbers = range(first, min(first + every, len(arriving)))
        allocated_milli += run.place(numbers, f"openb-{seed}-{first}")
        if len(numbers) == every and run.waiting:
            start = time.perf_counter()
            moves += run.optimise(f"openb-{seed}-{first}")
            seconds += time.perf_counter() - start
            optimisations += 1
            allocated_milli[-1] = run.allocated_milli
    percent = allocated_percent(arriving, allocated_milli, capacity_milli(nodes))
    return ReoptimisedReplay(seed, len(run.running), percent, optimisations, moves, seconds)


class _Run:
    """The engine with the numbers of the arrivals that run and that wait."""

    def __init__(
        self, nodes: Sequence[TraceNode], tasks: Sequence[TraceTask], arriving: Sequence[TraceTask]
    ) -> None:
        self._arriving = arriving
        self._policy = policy_of(Objective.PACK, tasks)
        self._engine = Engine()
        self._engine.apply(cluster_of(nodes).SerializeToString())
        self.running: set[int] = set()
        self.waiting: list[int] = []
        self.allocated_milli = 0

    def place(self, numbers: Sequence[int], evaluation_id: str) -> list[int]:
        """Place these online; the GPU milli that are allocated after each."""
        jobs = [job_of(number, self._arriving[number]) for number in numbers]
        plan, _ = place(self._engine, jobs, self._policy, evaluation_id)
        before = self.allocated_milli
        self._commit(plan.placements, moved=[])
        self.waiting += [number for number in numbers if number not in self.running]
        after = []
        for number in numbers:
            before += self._arriving[number].gpu_milli if number in self.running else 0
            after.append(before)
        return after

    def optimise(self, evaluation_id: str) -> int:
        """Make room for what waits; how many running tasks moved."""
        request = optimize_pb2.OptimizeRequest(
            evaluation_id=evaluation_id,
            policy=self._policy,
            jobs=[self._job(number) for number in (*self.waiting, *sorted(self.running))],
            running=[
                optimize_pb2.RunningTask(allocation_id=str(number), job_id=str(number), task_group=GROUP)
                for number in sorted(self.running)
            ],
            stop=optimize_pb2.Stop(rounds_max=ROUNDS),
        )
        answer = self._engine.snapshot().optimize(request.SerializeToString())
        found = optimize_pb2.OptimizeResponse.FromString(answer)
        moved = [move.allocation_id for move in found.moves]
        self._commit(found.plan.placements, moved)
        self.waiting = [number for number in self.waiting if number not in self.running]
        return len(moved)

    def _job(self, number: int) -> engine_pb2.PendingJob:
        """Waiting, or with nothing pending where it runs; what asks for more GPU goes first."""
        task = self._arriving[number]
        job = job_of(number, task)
        job.spec.priority = min(task.gpu_milli, HIGHEST_PRIORITY)
        if number in self.running:
            job.pending.add(task_group=GROUP)
        return job

    def _commit(self, placements: Sequence[engine_pb2.Placement], moved: Sequence[str]) -> None:
        numbers = [int(placement.job_id) for placement in placements]
        delta = engine_pb2.Delta(
            base_generation=self._engine.generation(),
            removed_allocation_ids=moved,
            allocations=[
                allocation_of(placement, self._arriving[number])
                for placement, number in zip(placements, numbers, strict=True)
            ],
        )
        self._engine.apply(delta.SerializeToString())
        new = set(numbers) - self.running
        self.running |= new
        self.allocated_milli += sum(self._arriving[number].gpu_milli for number in new)
