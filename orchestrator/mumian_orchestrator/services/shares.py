"""Whose turn it is among the tenants, how much each may start, and what nobody may take from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

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
    Cover,
    ShareRules,
    amount_of,
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
            cover = Cover(self.rules.of(tenant_id).guaranteed)
            if not cover.is_empty:
                self._shield(
                    tenant_id,
                    {
                        a.id: (job, a)
                        for job, a in sorted(self._table.holdings.allocations_of(tenant_id), key=_importance)
                        if cover.take(amount_of(a.resources))
                    },
                )

    def _shield(self, tenant_id: str, covered: dict[str, tuple[Job, Allocation]]) -> None:
        before = self._shielded.get(tenant_id, {})
        self._shielded[tenant_id] = covered
        added, dropped = covered.keys() - before.keys(), before.keys() - covered.keys()
        self._engine.shield(added, dropped)
        again = [(before | covered)[allocation_id] for allocation_id in sorted(added | dropped)]
        self._engine.update(booked=[(job, a) for job, a in again if self._is_booked(a)])

    def claim(self, pending: Sequence[PendingJob]) -> list[PendingJob]:
        """The same jobs; what a guarantee covers may take the place of what others have borrowed. Of a job
        that is covered in part only that part is left: `unclaimed` has the rest considered next.
        """
        if not self.rules.guarantee_anything:
            return list(pending)
        by_tenant: dict[str, list[tuple[Job, PendingJob]]] = {}
        for asked in pending:
            job = self._table.get(asked.job_id)
            if job and job.id not in self._whole:
                by_tenant.setdefault(job.tenant_id, []).append((job, asked))
            self._whole.discard(asked.job_id)
        covered: dict[str, tuple[TaskId, ...]] = {}
        for tenant_id, jobs in by_tenant.items():
            covered.update(self._covered(tenant_id, jobs))
        return [
            dataclasses.replace(asked, tasks=covered[asked.job_id], is_guaranteed=True)
            if covered.get(asked.job_id)
            else asked
            for asked in pending
        ]

    def _covered(
        self, tenant_id: str, pending: Sequence[tuple[Job, PendingJob]]
    ) -> Iterator[tuple[str, tuple[TaskId, ...]]]:
        """Of each job, the tasks that the tenant's guarantee covers beside what is more important, or as
        important and runs.
        """
        cover = Cover(self.rules.of(tenant_id).guaranteed)
        if cover.is_empty:
            return
        running = sorted(self._table.holdings.allocations_of(tenant_id), key=_importance, reverse=True)
        for job, asked in sorted(pending, key=lambda each: -each[0].spec.priority):
            while running and running[-1][0].spec.priority >= job.spec.priority:
                _, allocation = running.pop()
                cover.take(amount_of(allocation.resources))
            demands = {group.name: demand_of(group) for group in job.spec.task_groups}
            wanted = [demands[task.group] for task in asked.tasks]
            if job.spec.kind == job_pb2.JOB_KIND_GANG:
                yield job.id, asked.tasks if cover.take_all(wanted) else ()
            else:
                takes = zip(asked.tasks, map(cover.take, wanted), strict=True)
                yield job.id, tuple(task for task, is_covered in takes if is_covered)

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


def _importance(held: tuple[Job, Allocation]) -> tuple[int, int, str]:
    """The order in which a guarantee covers what runs."""
    job, allocation = held
    return -job.spec.priority, allocation.create_time.ToNanoseconds(), allocation.id


def _amount(amount: Amount) -> ResourceAmount:
    return ResourceAmount(**amount._asdict())


def _limit(limit: Amount) -> ResourceLimit:
    return ResourceLimit(**{name: most for name, most in limit._asdict().items() if most != UNLIMITED.tasks})
