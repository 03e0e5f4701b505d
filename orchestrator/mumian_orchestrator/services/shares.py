"""Whose turn it is among the tenants, how much each may start, and what nobody may take from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from mumian.api.v1 import job_pb2
from mumian.api.v1.job_pb2 import Allocation, Job
from mumian.api.v1.share_pb2 import ProjectShare, ResourceAmount, ResourceLimit, Share

from mumian_orchestrator.domain.decision import Decision, PendingJob, TaskId
from mumian_orchestrator.domain.job_state import holds_room
from mumian_orchestrator.domain.shares import (
    PARTS,
    RESOURCES,
    UNLIMITED,
    Amount,
    ShareRules,
    amount_of,
    covered,
    demand_of,
    dominant,
)
from mumian_orchestrator.ports.engine import Engine
from mumian_orchestrator.services.fleet import Fleet
from mumian_orchestrator.services.job_table import JobTable
from mumian_orchestrator.services.turns import Turns


class Shares:
    """The rules, applied to what the tenants hold now."""

    def __init__(self, rules: ShareRules, table: JobTable, fleet: Fleet, engine: Engine) -> None:
        self.rules, self._table, self._fleet, self._engine = rules, table, fleet, engine
        self._shielded: dict[str, dict[str, tuple[Job, Allocation]]] = {}
        # Jobs of which the guaranteed part found no place: next they are considered without the guarantee.
        self._whole: set[str] = set()

    def turns(self) -> Turns:
        """For one evaluation."""
        return Turns(self.rules, self._table, self._fleet.capacity())

    def report(self, tenant_id: str) -> Share:
        """What one tenant holds, and the rules for it."""
        holdings, capacity, rules = self._table.holdings, self._fleet.capacity(), self.rules.of(tenant_id)
        held = holdings.of_tenant(tenant_id)
        parts, resource = dominant(held, capacity)
        return Share(
            tenant_id=tenant_id,
            weight=rules.weight,
            held=_amount(held),
            quota=_limit(rules.quota),
            guaranteed=_amount(rules.guaranteed),
            dominant_permille=1000 * parts // PARTS,
            dominant_resource=RESOURCES[resource],
            projects=[
                ProjectShare(
                    project=project,
                    held=_amount(holdings.of_project(tenant_id, project)),
                    quota=_limit(rules.projects.get(project, UNLIMITED)),
                )
                for project in sorted({*rules.projects, *holdings.projects_of(tenant_id)} - {""})
            ],
            priority_max=rules.priority_max,
            fleet=_amount(capacity),
        )

    # What is guaranteed.

    def shield(self) -> None:
        """Keep what guarantees cover from being evicted, and nothing else."""
        if not self.rules.guarantee_anything:
            return
        changed, self._table.holdings.changed_tenants = self._table.holdings.changed_tenants, set()
        for tenant_id in changed:
            before = self._shielded.get(tenant_id, {})
            after = {a.id: (job, a) for job, a in self._covered_allocations(tenant_id)}
            self._shielded[tenant_id] = after
            added, dropped = after.keys() - before.keys(), before.keys() - after.keys()
            self._engine.shield(added, dropped)
            again = [(before | after)[allocation_id] for allocation_id in sorted(added | dropped)]
            self._engine.update(booked=[(job, a) for job, a in again if self._is_booked(a)])

    def claim(self, pending: Sequence[PendingJob]) -> list[PendingJob]:
        """The same jobs; what a guarantee covers may take the place of what others have borrowed. Of a job
        that is covered in part only that part is left: `unclaimed` has the rest considered next.
        """
        if not self.rules.guarantee_anything:
            return list(pending)
        claimed = []
        for asked in pending:
            job = self._table.get(asked.job_id)
            tasks = self._covered_tasks(job, asked) if job and job.id not in self._whole else ()
            self._whole.discard(asked.job_id)
            if not tasks:
                claimed.append(asked)
            else:
                claimed.append(dataclasses.replace(asked, tasks=tasks, is_guaranteed=True))
        return claimed

    def unclaimed(
        self, pending: Sequence[PendingJob], claims: Sequence[PendingJob], decision: Decision
    ) -> list[str]:
        """The jobs to consider again, for the part that no guarantee covers."""
        again = []
        placed = {placement.job_id for placement in decision.placements}
        for asked, claim in zip(pending, claims, strict=True):
            if len(claim.tasks) < len(asked.tasks):
                again.append(asked.job_id)
                if asked.job_id not in placed:
                    self._whole.add(asked.job_id)
        return again

    def _is_booked(self, allocation: Allocation) -> bool:
        return holds_room(allocation) and self._fleet.has_node(allocation.site_id, allocation.node_id)

    def _covered_tasks(self, job: Job, asked: PendingJob) -> tuple[TaskId, ...]:
        """Those of the tasks that the tenant's guarantee covers beside its work that is more important."""
        guaranteed = self.rules.of(job.tenant_id).guaranteed
        if not any(guaranteed):
            return ()
        demands = {group.name: demand_of(group) for group in job.spec.task_groups}
        more_important = [
            amount_of(a.resources)
            for other, a in self._table.holdings.allocations_of(job.tenant_id)
            if other.spec.priority >= job.spec.priority
        ]
        wanted = [demands[task.group] for task in asked.tasks]
        answers = covered(guaranteed, [*more_important, *wanted])[len(more_important) :]
        tasks = tuple(task for task, is_covered in zip(asked.tasks, answers, strict=True) if is_covered)
        is_gang = job.spec.kind == job_pb2.JOB_KIND_GANG
        return () if is_gang and len(tasks) < len(asked.tasks) else tasks

    def _covered_allocations(self, tenant_id: str) -> list[tuple[Job, Allocation]]:
        guaranteed = self.rules.of(tenant_id).guaranteed
        work = sorted(
            self._table.holdings.allocations_of(tenant_id),
            key=lambda held: (-held[0].spec.priority, held[1].create_time.ToNanoseconds(), held[1].id),
        )
        answers = covered(guaranteed, [amount_of(a.resources) for _, a in work])
        return [held for held, is_covered in zip(work, answers, strict=True) if is_covered]


def _amount(amount: Amount) -> ResourceAmount:
    return ResourceAmount(**amount._asdict())


def _limit(limit: Amount) -> ResourceLimit:
    return ResourceLimit(**{name: most for name, most in limit._asdict().items() if most != UNLIMITED.tasks})
