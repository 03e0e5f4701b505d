"""What a placement becomes when it is committed."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp
from mumian.api.v1.job_pb2 import Allocation, AllocationState, Job, JobSpec

from mumian_orchestrator.domain.decision import Placement


def allocation_of(
    placement: Placement,
    job: Job,
    spec: JobSpec,
    allocation_id: str,
    state: AllocationState.ValueType,
    create_time: Timestamp,
) -> Allocation:
    """The first attempt of a task at its place, by the job's spec or a newer version of it."""
    group = next(group for group in spec.task_groups if group.name == placement.task.group)
    return Allocation(
        id=allocation_id,
        job_id=job.id,
        tenant_id=job.tenant_id,
        task_group=placement.task.group,
        task_index=placement.task.index,
        attempt=1,
        site_id=placement.site_id,
        node_id=placement.node_id,
        resources=group.resources,
        devices=placement.devices,
        state=state,
        cost=placement.cost,
        latency=placement.latency,
        create_time=create_time,
    )
