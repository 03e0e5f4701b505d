"""Where the tasks of a tenant's jobs answer now, and how far that is from its users."""

from __future__ import annotations

from collections.abc import Iterator

from mumian.api.v1 import error_pb2, job_pb2
from mumian.api.v1.job_pb2 import Allocation, Job
from mumian.api.v1.job_service_pb2 import TaskEndpoint

from mumian_orchestrator.domain.errors import FieldFault, RequestRefusedError
from mumian_orchestrator.services.fleet import Fleet
from mumian_orchestrator.services.job_table import JobTable


class Endpoints:
    """Found in what is published of the jobs; nothing of it is stored."""

    def __init__(self, table: JobTable, fleet: Fleet) -> None:
        self._table, self._fleet = table, fleet

    def of(self, tenant_id: str, job: str, zone_id: str) -> list[TaskEndpoint]:
        """Those of a job's tasks that run and are well.

        Args:
            job: its id, or its name: then the newest job of that name that has not ended.
            zone_id: where the round-trip times are from; empty: none are told.

        Raises:
            RequestRefusedError: JOB_NOT_FOUND or UNKNOWN_ZONE.
        """
        found = self._table.named(tenant_id, job)
        if zone_id and zone_id not in self._fleet.zones:
            known = ", ".join(sorted(self._fleet.zones)) or "none are configured"
            reason = error_pb2.ERROR_REASON_UNKNOWN_ZONE
            message = f"zone_id ({zone_id!r}) is unknown; known zones: {known}"
            raise RequestRefusedError(reason, message, [FieldFault("zone_id", f"({zone_id!r}) is unknown")])
        return list(self._endpoints(found, zone_id))

    def _endpoints(self, job: Job, zone_id: str) -> Iterator[TaskEndpoint]:
        for allocation in job.allocations:
            if not _answers(allocation):
                continue
            link = self._fleet.link(zone_id, allocation.site_id)
            for endpoint in allocation.endpoints:
                yield TaskEndpoint(
                    job_id=job.id,
                    allocation_id=allocation.id,
                    task_group=allocation.task_group,
                    task_index=allocation.task_index,
                    endpoint=endpoint,
                    site_id=allocation.site_id,
                    rtt_p50_us=link.rtt_p50_us if link else None,
                    rtt_p99_us=link.rtt_p99_us if link else None,
                )


def _answers(allocation: Allocation) -> bool:
    """Whether it runs, is well, and is to stay."""
    return (
        allocation.state == job_pb2.ALLOCATION_STATE_RUNNING
        and not allocation.health_fault
        and not allocation.stop_requested
    )
