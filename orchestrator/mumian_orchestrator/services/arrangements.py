"""Everything that runs or waits, looked at together: what it costs, and how far it is from the best."""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from mumian.api.v1.explanation_pb2 import FILTER_HEALTH, CostBreakdown, Rejection
from mumian.api.v1.job_pb2 import JobSpec
from mumian.api.v1.planning_pb2 import Arrangement, Proof, SiteShare

from mumian_orchestrator.domain.arrangement import Assessment, Problem, RunningTask, SearchLimits, Solution
from mumian_orchestrator.domain.decision import PendingJob, TaskId
from mumian_orchestrator.domain.handover import is_movable
from mumian_orchestrator.domain.job_state import (
    holds_room,
    is_set_aside,
    task_of,
    unplaced_tasks,
    wants_placement,
)
from mumian_orchestrator.ports.clock import Clock
from mumian_orchestrator.ports.engine import View
from mumian_orchestrator.services.movers import Evictions, Jobs, Sites

_PPM = 1_000_000


@dataclass(frozen=True, slots=True)
class Stock:
    """All tasks at one moment."""

    jobs: Mapping[str, PendingJob]  # with the tasks that wait for a place
    running: Sequence[RunningTask]
    costs: Mapping[str, CostBreakdown]  # by allocation id, of when it was placed
    movable: Collection[str]  # allocation ids

    @property
    def waiting_count(self) -> int:
        """How many tasks wait for a place."""
        return sum(len(job.tasks) for job in self.jobs.values())

    def asking(self, specs: Mapping[str, JobSpec]) -> Stock:
        """The same if some jobs had other specs."""
        jobs = {
            job_id: dataclasses.replace(job, spec=specs.get(job_id, job.spec))
            for job_id, job in self.jobs.items()
        }
        return dataclasses.replace(self, jobs=jobs)

    def without(self, lost: Collection[RunningTask]) -> Stock:
        """The same after some tasks have lost their places: they wait for new ones."""
        homeless: dict[str, list[TaskId]] = defaultdict(list)
        for task in lost:
            homeless[task.job_id].append(task.task)
        lost_ids = {task.allocation_id for task in lost}
        jobs = {
            job_id: dataclasses.replace(job, tasks=(*job.tasks, *homeless[job_id]))
            for job_id, job in self.jobs.items()
        }
        running = [task for task in self.running if task.allocation_id not in lost_ids]
        return dataclasses.replace(self, jobs=jobs, running=running)


@dataclass(frozen=True, slots=True)
class Best:
    """The best arrangement that was found, and how to get there."""

    arrangement: Arrangement
    solution: Solution
    # By allocation id: how what runs now stands before anything moves.
    standing: Mapping[str, Assessment]


class Arrangements:
    """Asks views of the cluster about the jobs of the table."""

    def __init__(self, table: Jobs, fleet: Sites, preemptions: Evictions, clock: Clock) -> None:
        self._table, self._fleet, self._preemptions, self._clock = table, fleet, preemptions, clock
        self._numbers = itertools.count(1)

    def stock(self) -> Stock:
        """All tasks as they are now.

        Left out are tasks that wait for a cheaper hour or for others to make room: they have decided. Work on
        sites that are silent is not moved, since nobody can say whether it still runs.
        """
        jobs: dict[str, PendingJob] = {}
        running: list[RunningTask] = []
        costs: dict[str, CostBreakdown] = {}
        movable: set[str] = set()
        for job in self._table.jobs():
            waits = wants_placement(job) and not job.spec.HasField("deferral")
            waiting = unplaced_tasks(job) if waits and not self._preemptions.is_waiting(job.id) else ()
            live = [a for a in job.allocations if holds_room(a) and not is_set_aside(job, a)]
            if waiting or live:
                jobs[job.id] = PendingJob(job.id, job.spec, waiting, job.create_time.seconds)
            for allocation in live:
                task = task_of(allocation)
                running.append(
                    RunningTask(allocation.id, job.id, task, allocation.site_id, allocation.node_id)
                )
                costs[allocation.id] = allocation.cost
                if is_movable(job, allocation) and self._fleet.is_reachable(allocation.site_id):
                    movable.add(allocation.id)
        return Stock(jobs, running, costs, movable)

    async def as_it_runs(self, view: View, stock: Stock) -> tuple[Arrangement, Mapping[str, Assessment]]:
        """What runs, as it stands in a view."""
        standing = await self._standing(view, stock)
        placed = [(task.site_id, standing[task.allocation_id]) for task in stock.running]
        shares = ((site_id, a.cost, a.broken) for site_id, a in placed)
        return _arrangement(shares, stock.waiting_count, moved=0), standing

    async def best(self, view: View, stock: Stock, limits: SearchLimits) -> Best:
        """What waits placed, and services moved, so that all together is as good as is found in time."""
        movable = [task for task in stock.running if task.allocation_id in stock.movable]
        in_play = {task.job_id for task in movable}
        jobs = [job for job_id, job in stock.jobs.items() if job.tasks or job_id in in_play]
        evaluation_id = f"arrangement-{next(self._numbers)}"
        solution = await view.optimize(
            evaluation_id, Problem(jobs, movable), limits, self._clock.now().seconds
        )
        standing = await self._standing(view, stock)
        placed: list[tuple[str, CostBreakdown, Rejection | None]] = []
        for task in stock.running:
            new = solution.moved.get(task.allocation_id)
            here = standing[task.allocation_id]
            placed.append((new.site_id, new.cost, None) if new else (task.site_id, here.cost, here.broken))
        moved = {(p.job_id, p.task) for p in solution.moved.values()}
        newcomers = [p for p in solution.placements if (p.job_id, p.task) not in moved]
        placed += [(p.site_id, p.cost, None) for p in newcomers]
        arrangement = _arrangement(placed, stock.waiting_count - len(newcomers), len(moved))
        arrangement.proof.CopyFrom(_proof(solution, arrangement.cost_microcny_per_hour))
        return Best(arrangement, solution, standing)

    async def _standing(self, view: View, stock: Stock) -> dict[str, Assessment]:
        now_unix_s = self._clock.now().seconds
        assessed = await view.assess(list(stock.jobs.values()), stock.running, now_unix_s)
        standing = {}
        for task, assessment in zip(stock.running, assessed, strict=True):
            if assessment.is_gone:
                # Its site has not said hello to this leader yet: what it cost when it was placed holds.
                assessment = dataclasses.replace(assessment, cost=stock.costs[task.allocation_id])
            standing[task.allocation_id] = assessment
        return standing


def _arrangement(
    placed: Iterable[tuple[str, CostBreakdown, Rejection | None]], unplaced: int, moved: int
) -> Arrangement:
    arrangement = Arrangement(unplaced_task_count=unplaced, moved_task_count=moved)
    sites: dict[str, SiteShare] = {}
    for site_id, cost, broken in placed:
        share = sites.setdefault(site_id, SiteShare(site_id=site_id))
        share.task_count += 1
        share.cost_microcny_per_hour += cost.total_microcny_per_hour
        share.facility_power_mw += cost.facility_power_mw
        arrangement.placed_task_count += 1
        arrangement.cost_microcny_per_hour += cost.total_microcny_per_hour
        # What a site is in for, such as silence, is no promise of a job.
        arrangement.broken_promise_count += broken is not None and broken.filter != FILTER_HEALTH
    arrangement.sites.extend(sites[site_id] for site_id in sorted(sites))
    return arrangement


def _proof(solution: Solution, cost_microcny: int) -> Proof:
    """The bound on everything: what is not in play costs the same in every solution."""
    not_in_play = cost_microcny - solution.cost_microcny
    objective = solution.objective_microcny + not_in_play
    gap = max(0, solution.objective_microcny - solution.bound_microcny)
    return Proof(
        bound_microcny_per_hour=solution.bound_microcny + not_in_play,
        gap_ppm=gap * _PPM // max(1, objective),
        prices=sorted(solution.prices, key=lambda price: (price.site_id, price.resource)),
    )
