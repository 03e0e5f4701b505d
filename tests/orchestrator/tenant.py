"""A caller of the tenant API, and the jobs that it submits."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence

import grpc
from mumian.api.v1 import job_pb2, job_service_pb2
from mumian.api.v1.job_event_pb2 import JobEvent
from mumian.api.v1.job_service_pb2_grpc import JobServiceStub


def spec_of(name: str = "work", count: int = 1, cpu_milli: int = 1000, **job: object) -> job_pb2.JobSpec:
    """A job of one group of equal tasks."""
    group = job_pb2.TaskGroup(name="main", count=count, command=job_pb2.Command(argv=["true"]))
    group.resources.cpu_milli = cpu_milli
    return job_pb2.JobSpec(name=name, task_groups=[group], **job)  # type: ignore[arg-type]


class Tenant:
    """A caller of the tenant API."""

    def __init__(self, channel: grpc.aio.Channel, tenant_id: str = "acme") -> None:
        self.jobs = JobServiceStub(channel)
        self._metadata = (("mumian-tenant", tenant_id),)

    async def create(self, spec: job_pb2.JobSpec, request_id: str = "") -> job_pb2.Job:
        request = job_service_pb2.CreateJobRequest(request_id=request_id or uuid.uuid4().hex, spec=spec)
        return (await self.jobs.CreateJob(request, metadata=self._metadata)).job

    async def get(self, job_id: str) -> job_pb2.Job:
        request = job_service_pb2.GetJobRequest(job_id=job_id)
        return (await self.jobs.GetJob(request, metadata=self._metadata)).job

    async def cancel(self, job_id: str) -> job_pb2.Job:
        request = job_service_pb2.CancelJobRequest(job_id=job_id)
        return (await self.jobs.CancelJob(request, metadata=self._metadata)).job

    async def events(self, job_id: str) -> Sequence[JobEvent]:
        request = job_service_pb2.ListJobEventsRequest(job_id=job_id, page_size=500)
        async with asyncio.timeout(60):
            call = self.jobs.ListJobEvents(request, metadata=self._metadata, wait_for_ready=True)
            return (await call).events

    async def until(self, job_id: str, state: job_pb2.JobState.ValueType) -> job_pb2.Job:
        return await self.watch(job_id, lambda job: job.state == state)

    async def watch(self, job_id: str, wanted: Callable[[job_pb2.Job], bool]) -> job_pb2.Job:
        call = self.jobs.WatchJob(job_service_pb2.WatchJobRequest(job_id=job_id), metadata=self._metadata)
        try:
            async with asyncio.timeout(60):
                async for response in call:
                    if wanted(response.job):
                        return response.job
        finally:
            call.cancel()
        raise AssertionError(f"job {job_id} ended in another state: {await self.get(job_id)}")

    async def list(self, **request: object) -> job_service_pb2.ListJobsResponse:
        message = job_service_pb2.ListJobsRequest(**request)  # type: ignore[arg-type]
        return await self.jobs.ListJobs(message, metadata=self._metadata)
