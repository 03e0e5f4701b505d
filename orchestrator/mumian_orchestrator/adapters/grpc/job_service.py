"""The tenants' door."""

from __future__ import annotations

from collections.abc import AsyncIterator

from mumian.api.v1 import job_service_pb2 as pb
from mumian.api.v1.job_pb2 import Job
from mumian.api.v1.job_service_pb2_grpc import JobServiceServicer

from mumian_orchestrator.adapters.grpc.errors import Context, refusal_of, stream, unary
from mumian_orchestrator.adapters.grpc.tenant import tenant_of
from mumian_orchestrator.domain.errors import RequestRefusedError
from mumian_orchestrator.domain.pages import key_of, page, size_of, token_of
from mumian_orchestrator.services.admission import Admission
from mumian_orchestrator.services.archive import page_key
from mumian_orchestrator.services.bundles import Bundles
from mumian_orchestrator.services.endpoints import Endpoints
from mumian_orchestrator.services.submissions import Submission


class JobService(JobServiceServicer):
    """`JobService` over the admission service, which is told the tenant and shows nothing of others."""

    def __init__(self, admission: Admission, endpoints: Endpoints, bundles: Bundles) -> None:
        self._admission, self._endpoints, self._bundles = admission, endpoints, bundles

    @unary
    async def CreateJob(self, request: pb.CreateJobRequest, context: Context) -> pb.CreateJobResponse:
        job = await self._admission.create(tenant_of(context), request.request_id, request.spec)
        return pb.CreateJobResponse(job=job)

    @unary
    async def CreateJobs(self, request: pb.CreateJobsRequest, context: Context) -> pb.CreateJobsResponse:
        wanted = [Submission(each.request_id, each.spec) for each in request.submissions]
        response = pb.CreateJobsResponse()
        for outcome in await self._admission.create_many(tenant_of(context), wanted):
            if isinstance(outcome, RequestRefusedError):
                response.results.add(refusal=refusal_of(outcome))
            else:
                response.results.add(job=outcome)
        return response

    @unary
    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> pb.GetJobResponse:
        return pb.GetJobResponse(job=await self._admission.find(tenant_of(context), request.job_id))

    @unary
    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:
        tenant_id, states = tenant_of(context), request.states
        if request.archived:
            size, after = size_of(request.page_size), key_of(request.page_token)
            shown, behind = await self._admission.page_of_all(tenant_id, states, after, size)
            token = token_of(behind) if behind else ""
        else:
            jobs = self._admission.list(tenant_id, states)
            shown, token = page(jobs, page_key, request.page_size, request.page_token)
        return pb.ListJobsResponse(jobs=[_without_explanations(job) for job in shown], next_page_token=token)

    @stream
    async def WatchJob(
        self, request: pb.WatchJobRequest, context: Context
    ) -> AsyncIterator[pb.WatchJobResponse]:
        async for job in self._admission.watch(tenant_of(context), request.job_id):
            yield pb.WatchJobResponse(job=job)

    @unary
    async def UpdateJob(self, request: pb.UpdateJobRequest, context: Context) -> pb.UpdateJobResponse:
        job = await self._admission.update(tenant_of(context), request.job, request.spec)
        return pb.UpdateJobResponse(job=job)

    @unary
    async def CancelJob(self, request: pb.CancelJobRequest, context: Context) -> pb.CancelJobResponse:
        return pb.CancelJobResponse(job=await self._admission.cancel(tenant_of(context), request.job_id))

    @stream
    async def ReadLogs(
        self, request: pb.ReadLogsRequest, context: Context
    ) -> AsyncIterator[pb.ReadLogsResponse]:
        chunks = self._admission.read_logs(
            tenant_of(context), request.job_id, request.allocation_id, request.follow, request.tail_bytes
        )
        async for allocation, chunk in chunks:
            yield pb.ReadLogsResponse(allocation_id=allocation.id, stream=chunk.stream, data=chunk.data)

    @unary
    async def ListEndpoints(
        self, request: pb.ListEndpointsRequest, context: Context
    ) -> pb.ListEndpointsResponse:
        found = self._endpoints.of(tenant_of(context), request.job, request.zone_id)
        found.sort(key=_endpoint_key)
        shown, token = page(found, _endpoint_key, request.page_size, request.page_token)
        return pb.ListEndpointsResponse(endpoints=shown, next_page_token=token)

    @unary
    async def UploadBundle(
        self, request: pb.UploadBundleRequest, context: Context
    ) -> pb.UploadBundleResponse:
        stored_bytes = await self._bundles.upload(
            tenant_of(context), request.bundle, request.offset_bytes, request.data
        )
        return pb.UploadBundleResponse(stored_bytes=stored_bytes)

    @unary
    async def ReadOutput(self, request: pb.ReadOutputRequest, context: Context) -> pb.ReadOutputResponse:
        data = await self._admission.read_output(
            tenant_of(context), request.job_id, request.allocation_id, request.offset_bytes
        )
        return pb.ReadOutputResponse(data=data)

    @unary
    async def PlanJob(self, request: pb.PlanJobRequest, context: Context) -> pb.PlanJobResponse:
        decision, quote = await self._admission.plan(tenant_of(context), request.spec)
        return pb.PlanJobResponse(
            explanations=[e for explanations in decision.explanations.values() for e in explanations],
            tasks=[
                pb.PlannedTask(
                    task_group=placement.task.group,
                    task_index=placement.task.index,
                    site_id=placement.site_id,
                    node_id=placement.node_id,
                    cost=placement.cost,
                    latency=placement.latency,
                )
                for placement in decision.placements
            ],
            quote=quote,
        )

    @unary
    async def ExplainJob(self, request: pb.ExplainJobRequest, context: Context) -> pb.ExplainJobResponse:
        tenant_id = tenant_of(context)
        explanations, disconnects = await self._admission.explain(tenant_id, request.job_id)
        job = self._admission.get(tenant_id, request.job_id)
        return pb.ExplainJobResponse(
            explanations=explanations,
            disconnects=disconnects,
            shortage=job.shortage if job.HasField("shortage") else None,
        )

    @unary
    async def ListJobEvents(
        self, request: pb.ListJobEventsRequest, context: Context
    ) -> pb.ListJobEventsResponse:
        events = await self._admission.events(tenant_of(context), request.job_id)
        shown, token = page(
            events, lambda event: f"{event.sequence:020d}", request.page_size, request.page_token
        )
        return pb.ListJobEventsResponse(events=shown, next_page_token=token)

    @unary
    async def GetShare(self, request: pb.GetShareRequest, context: Context) -> pb.GetShareResponse:
        return pb.GetShareResponse(share=self._admission.share(tenant_of(context)))


def _endpoint_key(found: pb.TaskEndpoint) -> str:
    # "\0" sorts below every character of a name.
    return f"{found.task_group}\0{found.task_index:06d}\0{found.allocation_id}\0{found.endpoint.port}"


def _without_explanations(job: Job) -> Job:
    copy = Job()
    copy.CopyFrom(job)
    copy.ClearField("explanations")
    return copy
