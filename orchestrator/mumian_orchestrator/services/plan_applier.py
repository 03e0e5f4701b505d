"""The only writer of new allocations."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from mumian.api.v1 import job_event_pb2, job_pb2
from mumian.api.v1.explanation_pb2 import Explanation
from mumian.api.v1.job_pb2 import Allocation, Job, JobSpec

from mumian_orchestrator.domain.allocation import allocation_of
from mumian_orchestrator.domain.decision import Decision, PendingJob, Placement, TaskId
from mumian_orchestrator.domain.handover import is_movable, successor_of
from mumian_orchestrator.domain.job_state import is_live, task_of, tasks_to_place, wants_placement
from mumian_orchestrator.ports.clock import Clock
from mumian_orchestrator.ports.engine import Engine
from mumian_orchestrator.services.agent_sessions import AgentSessions
from mumian_orchestrator.services.failpoints import Failpoint, reach
from mumian_orchestrator.services.job_table import ALLOCATIONS_PER_COMMIT, JobTable
from mumian_orchestrator.services.money.funding import Funding
from mumian_orchestrator.services.preemptions import Preemptions
from mumian_orchestrator.services.tasks import TaskSet

log = logging.getLogger(__name__)

# Of each stored explanation. They come best first, and a job with all its groups has to fit one commit.
SITES_EXPLAINED_MAX = 64

TaskOfJob = tuple[str, TaskId]


@dataclass(frozen=True, slots=True)
class Applied:
    """The jobs to look at again: something changed meanwhile, or (`infeasible`) nothing did, and the plan for
    them could never have held. The `unpaid` have no money for their places, which others may have.
    """

    again: Sequence[str]
    infeasible: Sequence[str]
    unpaid: Collection[str]


class PlanApplier:
    """Checks a decision on the newest state, books it, makes it durable, and only then tells the agents."""

    def __init__(
        self,
        table: JobTable,
        engine: Engine,
        sessions: AgentSessions,
        preemptions: Preemptions,
        funding: Funding,
        clock: Clock,
    ) -> None:
        self._table, self._engine, self._sessions, self._clock = table, engine, sessions, clock
        self._preemptions, self._funding = preemptions, funding
        self._dispatches = TaskSet()
        self.conflicts = 0  # plans that were overtaken by a change of the state

    def apply(self, decision: Decision, pending: Sequence[PendingJob]) -> Applied:
        """Commit what still holds."""
        verified = decision
        if decision.placements or decision.evictions:
            verified = self._engine.verify(decision, pending)
        # What has room beside the victims is committed now; the rest waits for their end.
        at_once = verified
        if verified.evictions:
            at_once = self._engine.verify(dataclasses.replace(verified, evictions=()), pending)
        placements, by_eviction = _by_job(at_once.placements), _by_job(verified.placements)
        victims: dict[str, list[str]] = defaultdict(list)
        for eviction in verified.evictions:
            victims[eviction.by_job_id].append(eviction.allocation_id)
        planned = Counter(placement.job_id for placement in decision.placements)
        again, infeasible, unpaid = [], [], set[str]()
        waiting: list[tuple[Job, Sequence[Explanation]]] = []
        for asked in pending:
            job = self._table.get(asked.job_id)
            if job is None or not wants_placement(job):
                continue
            job.ClearField("shortage")
            if not planned[job.id]:
                waiting.append((job, _stored(decision.explanations.get(job.id, ()))))
                continue
            still = set(tasks_to_place(job))
            wanted = [p for p in placements[job.id] if p.task in still]
            later = [p for p in by_eviction[job.id] if p.task in still and p not in wanted]
            if victims[job.id] and len(wanted) + len(later) == planned[job.id]:
                reserved = [self._allocation(job, placement) for placement in later]
                at_once_too = [self._allocation(job, placement) for placement in wanted]
                # Nobody is evicted for a job that could not pay for the place.
                if not self._funding.can_pay(job, [*at_once_too, *reserved]):
                    unpaid.add(job.id)
                elif not self._preemptions.begin(job, reserved, victims[job.id]):
                    again.append(job.id)
            elif len(wanted) < planned[job.id]:
                again.append(job.id)
                if verified.generation == decision.generation and len(by_eviction[job.id]) < planned[job.id]:
                    infeasible.append(job.id)
                else:
                    self.conflicts += 1
                if job.spec.kind == job_pb2.JOB_KIND_GANG:
                    wanted = []
            paid = self._funding.reserve(job, [self._allocation(job, placement) for placement in wanted])
            if len(paid) < len(wanted):
                unpaid.add(job.id)
            explanations = _stored(decision.explanations.get(job.id, ()))
            if paid:
                self._commit(job, paid, explanations)
            else:
                waiting.append((job, explanations))
        if waiting:
            self._table.publish_outlooks(waiting)
        return Applied(again, infeasible, unpaid)

    def _commit(
        self, job: Job, allocations: Sequence[Allocation], explanations: Sequence[Explanation]
    ) -> None:
        """Commit places that are paid for."""
        del job.explanations[:]
        job.explanations.extend(explanations)
        self._engine.update(booked=[(job, allocation) for allocation in allocations])
        job.allocations.extend(allocations)
        added = job.allocations[len(job.allocations) - len(allocations) :]
        # A gang is never longer than one commit (admission sees to it), so it is durable whole or not at all.
        for start in range(0, len(added), ALLOCATIONS_PER_COMMIT):
            part = added[start : start + ALLOCATIONS_PER_COMMIT]
            durable = self._table.commit(job, part, job_event_pb2.JOB_EVENT_KIND_PLACED)
            self._dispatches.start(self._dispatch(durable, job, part))

    def propose(self, job: Job, placements: Sequence[Placement]) -> list[Allocation]:
        """The allocations that would be made of placements; nothing is kept."""
        return [self._allocation(job, placement) for placement in placements]

    def begin_moves(
        self,
        decision: Decision,
        jobs: Sequence[PendingJob],
        leaving: Mapping[TaskOfJob, str],
        why: str = "",
    ) -> list[Allocation]:
        """Start those moves of running services that have room beside all that runs now.

        Args:
            decision: the new places, and no evictions.
            leaving: by job and task, the allocation that goes on until the new one runs.
            why: told with the move.

        Returns:
            The new allocations, each with `takes_over_from` set.
        """
        begun = []
        for placement in self._engine.verify(decision, jobs).placements:
            job = self._table.get(placement.job_id)
            old_id = leaving[placement.job_id, placement.task]
            old = next((a for a in job.allocations if a.id == old_id), None) if job else None
            if job is None or old is None or not is_movable(job, old):
                continue
            made = self.successor(job, placement, old_id)
            if not self._funding.reserve(job, [made]):
                job.ClearField("shortage")  # it runs on where it is
                continue
            begun.append(self._begin(job, made, "moves", why))
        return begun

    def begin_updates(
        self, decision: Decision, asked: PendingJob, leaving: Mapping[TaskOfJob, str], version: int
    ) -> list[Allocation]:
        """Start tasks of a newer version of a job, where there is room beside all that runs now.

        Args:
            decision: the places, and no evictions.
            asked: the job with its newer spec.
            leaving: by job and task, the allocation that goes on until the new one runs.
            version: of the newer spec.

        Returns:
            The new allocations, each with `takes_over_from` set.
        """
        begun = []
        for placement in self._engine.verify(decision, [asked]).placements:
            job = self._table.get(placement.job_id)
            old_id = leaving[placement.job_id, placement.task]
            old = next((a for a in job.allocations if a.id == old_id), None) if job else None
            if job is None or old is None or not is_live(old) or successor_of(job, old) is not None:
                continue
            made = self._allocation(job, placement, asked.spec, version)
            made.takes_over_from = old_id
            if not self._funding.reserve(job, [made]):
                job.ClearField("shortage")  # the older version runs on
                continue
            begun.append(self._begin(job, made, "is updated"))
        return begun

    def successor(self, job: Job, placement: Placement, old_id: str) -> Allocation:
        """The allocation that would take over at the new place."""
        made = self._allocation(job, placement)
        made.takes_over_from = old_id
        return made

    def _begin(self, job: Job, made: Allocation, what: str, because: str = "") -> Allocation:
        job.allocations.append(made)
        successor = job.allocations[-1]
        self._engine.update(booked=[(job, successor)])
        why = (
            f"{what}: {successor.id} on {successor.node_id} is to take over from {successor.takes_over_from}"
        )
        why = f"{why}: {because}" if because else why
        durable = self._table.commit(job, [successor], job_event_pb2.JOB_EVENT_KIND_PLACED, why)
        self._dispatches.start(self._dispatch(durable, job, [successor]))
        return successor

    async def _dispatch(
        self, durable: asyncio.Future[None], job: Job, allocations: Sequence[Allocation]
    ) -> None:
        await durable
        reach(Failpoint.BEFORE_DISPATCH)
        for allocation in allocations:
            self._sessions.run(job, allocation)

    def _allocation(
        self, job: Job, placement: Placement, spec: JobSpec | None = None, version: int = 0
    ) -> Allocation:
        """Of the job's own spec, or of a newer version."""
        earlier = sum(task_of(allocation) == placement.task for allocation in job.allocations)
        made = allocation_of(
            placement,
            job,
            spec or job.spec,
            f"{job.id}.{placement.task.group}.{placement.task.index}{f'.{earlier}' if earlier else ''}",
            job_pb2.ALLOCATION_STATE_PENDING,
            self._clock.now(),
        )
        made.job_version = version or job.version
        return made


def _stored(explanations: Sequence[Explanation]) -> Sequence[Explanation]:
    """Of their sites those that are kept."""
    for explanation in explanations:
        if len(explanation.sites) > SITES_EXPLAINED_MAX:
            del explanation.sites[SITES_EXPLAINED_MAX:]
    return explanations


def _by_job(placements: Sequence[Placement]) -> dict[str, list[Placement]]:
    found: dict[str, list[Placement]] = defaultdict(list)
    for placement in placements:
        found[placement.job_id].append(placement)
    return found
