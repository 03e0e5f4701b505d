"""What each tenant and each of its projects holds, kept up to date with every change."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from mumian.api.v1.job_pb2 import Allocation, Job

from mumian_orchestrator.domain.shares import NOTHING, Amount, amount_of

Owner = tuple[str, str]


class Holdings:
    """Sums over the allocations that hold room; each is counted once, however often it is told."""

    def __init__(self) -> None:
        self._counted: dict[str, tuple[Job, Allocation]] = {}
        self._allocations: defaultdict[str, set[str]] = defaultdict(set)
        self._tenants: defaultdict[str, Amount] = defaultdict(lambda: NOTHING)
        self._projects: defaultdict[Owner, Amount] = defaultdict(lambda: NOTHING)
        self.changed_tenants: set[str] = set()  # for whoever takes them out

    def count(self, job: Job, allocation: Allocation) -> None:
        """An allocation holds what it is given."""
        if allocation.id not in self._counted:
            self._counted[allocation.id] = job, allocation
            self._allocations[job.tenant_id].add(allocation.id)
            self._add(job, allocation, 1)

    def forget(self, allocation_id: str) -> None:
        """It holds nothing any more."""
        if (counted := self._counted.pop(allocation_id, None)) is not None:
            job, allocation = counted
            self._allocations[job.tenant_id].discard(allocation_id)
            self._add(job, allocation, -1)

    def of_tenant(self, tenant_id: str) -> Amount:
        """What all work of a tenant holds."""
        return self._tenants.get(tenant_id, NOTHING)

    def of_project(self, tenant_id: str, project: str) -> Amount:
        """What the work of one project holds."""
        return self._projects.get((tenant_id, project), NOTHING)

    def projects_of(self, tenant_id: str) -> list[str]:
        """The projects of a tenant that hold something."""
        return [project for owner, project in self._projects if owner == tenant_id]

    def allocations_of(self, tenant_id: str) -> Collection[tuple[Job, Allocation]]:
        """The work of a tenant that holds room."""
        return [self._counted[allocation_id] for allocation_id in self._allocations.get(tenant_id, ())]

    def _add(self, job: Job, allocation: Allocation, times: int) -> None:
        amount, owner = amount_of(allocation.resources), (job.tenant_id, job.spec.project)
        self._tenants[job.tenant_id] = self._tenants[job.tenant_id].plus(amount, times)
        self._projects[owner] = self._projects[owner].plus(amount, times)
        self.changed_tenants.add(job.tenant_id)
        if not any(self._projects[owner]):
            del self._projects[owner]
        if not any(self._tenants[job.tenant_id]):
            del self._tenants[job.tenant_id], self._allocations[job.tenant_id]
