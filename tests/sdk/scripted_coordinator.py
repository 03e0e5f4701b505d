"""A coordinator that does what the test says: real messages over real gRPC, no scheduler and no store."""

# ruff: noqa: N802 (the names and arguments of servicers are those of the protos)

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from mumian.api.v1 import (
    fleet_pb2,
    fleet_service_pb2,
    fleet_service_pb2_grpc,
    job_pb2,
    job_service_pb2,
    job_service_pb2_grpc,
    planning_service_pb2,
    planning_service_pb2_grpc,
)
from mumian.api.v1.error_pb2 import Refusal
from mumian.api.v1.job_event_pb2 import JobEvent
from mumian.api.v1.job_pb2 import Job
from mumian.api.v1.share_pb2 import Share

Context = grpc.ServicerContext


def refusal(
    code: grpc.StatusCode,
    reason: str,
    message: str,
    fields: Sequence[tuple[str, str]] = (),
    retry_after_ms: int = 0,
) -> grpc.Status:
    """A status with the details that a coordinator gives."""
    details: list[Any] = [error_details_pb2.ErrorInfo(reason=reason, domain="mumian.dev")]
    if fields:
        bad = error_details_pb2.BadRequest()
        for field, description in fields:
            bad.field_violations.add(field=field, description=description)
        details.append(bad)
    if retry_after_ms:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(retry_after_ms)
        details.append(retry)
    packed = []
    for detail in details:
        packed.append(AnyMessage())
        packed[-1].Pack(detail)
    status: grpc.Status = rpc_status.to_status(
        status_pb2.Status(code=code.value[0], message=message, details=packed)
    )
    return status


class ScriptedCoordinator(
    job_service_pb2_grpc.JobServiceServicer,
    fleet_service_pb2_grpc.FleetServiceServicer,
    planning_service_pb2_grpc.PlanningServiceServicer,
):
    """Answers from lists that the test fills; the next refusals of a method are taken from `refusals`."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.metadata: dict[str, str] = {}
        self.refusals: dict[str, deque[grpc.Status]] = {}
        # By the name of a job that is submitted with others.
        self.refused_jobs: dict[str, deque[Refusal]] = {}
        # How a stream ends after its last response: None is well.
        self.breaks: deque[grpc.Status | None] = deque()
        self.job_by_request: dict[str, Job] = {}
        # The states that WatchJob sends, each call from the first on.
        self.watched: list[Job] = []
        self.watch_stays_open = False
        self._stopped = threading.Event()
        self.jobs: list[Job] = []
        self.events: list[JobEvent] = []
        self.sites: list[fleet_pb2.Site] = []
        self.brake = fleet_pb2.DisconnectBrake()
        self.disconnects: list[str] = []
        self.share = Share()
        self.nodes: list[fleet_pb2.Node] = []
        self.zones: list[fleet_pb2.Zone] = []
        self.links: list[fleet_pb2.Link] = []
        self.endpoints: list[job_service_pb2.TaskEndpoint] = []
        self.bundles: dict[str, bytearray] = {}  # by hash
        self.outputs: dict[str, bytes] = {}  # by allocation
        self.chunks: list[job_service_pb2.ReadLogsResponse] = []
        self.planned = job_service_pb2.PlanJobResponse()
        self.optimized = planning_service_pb2.OptimizeFleetResponse()
        self.supposed = planning_service_pb2.WhatIfResponse()
        self.page_size = 2
        self._server = grpc.server(
            ThreadPoolExecutor(8),
            options=[
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", 4 * 1024**2),
                # The pings of clients are welcome, as at a real coordinator.
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 1000),
                ("grpc.http2.max_ping_strikes", 0),
            ],
        )
        job_service_pb2_grpc.add_JobServiceServicer_to_server(self, self._server)
        fleet_service_pb2_grpc.add_FleetServiceServicer_to_server(self, self._server)
        planning_service_pb2_grpc.add_PlanningServiceServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def stop(self) -> None:
        """Break all calls off."""
        self._stopped.set()
        self._server.stop(None).wait()

    def refuse(self, method: str, *statuses: grpc.Status) -> None:
        """Refuse the next calls of a method, one status each."""
        self.refusals.setdefault(method, deque()).extend(statuses)

    def requests(self, method: str) -> list[Any]:
        """The requests of all calls of a method, in order."""
        return [request for name, request in self.calls if name == method]

    def CreateJob(self, request: Any, context: Context) -> job_service_pb2.CreateJobResponse:
        self._enter("CreateJob", request, context)
        return job_service_pb2.CreateJobResponse(job=self._job_of(request))

    def CreateJobs(self, request: Any, context: Context) -> job_service_pb2.CreateJobsResponse:
        self._enter("CreateJobs", request, context)
        response = job_service_pb2.CreateJobsResponse()
        for each in request.submissions:
            if waiting := self.refused_jobs.get(each.spec.name):
                response.results.add(refusal=waiting.popleft())
            else:
                response.results.add(job=self._job_of(each))
        return response

    def _job_of(self, request: job_service_pb2.CreateJobRequest) -> Job:
        return self.job_by_request.setdefault(
            request.request_id,
            Job(
                id=f"{request.spec.name}-{len(self.job_by_request):08x}",
                tenant_id=self.metadata.get("mumian-tenant", ""),
                spec=request.spec,
                state=job_pb2.JOB_STATE_PENDING,
            ),
        )

    def GetJob(self, request: Any, context: Context) -> job_service_pb2.GetJobResponse:
        self._enter("GetJob", request, context)
        found = [job for job in self.jobs if job.id == request.job_id]
        if not found:
            message = f"job ({request.job_id}) does not exist; `mumian jobs` lists yours"
            context.abort_with_status(refusal(grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND", message))
        return job_service_pb2.GetJobResponse(job=found[0])

    def ListJobs(self, request: Any, context: Context) -> job_service_pb2.ListJobsResponse:
        self._enter("ListJobs", request, context)
        jobs = [job for job in self.jobs if not request.states or job.state in request.states]
        page, token = self._page(jobs, request.page_token)
        return job_service_pb2.ListJobsResponse(jobs=page, next_page_token=token)

    def WatchJob(self, request: Any, context: Context) -> Iterator[job_service_pb2.WatchJobResponse]:
        self._enter("WatchJob", request, context)
        end = self.breaks.popleft() if self.breaks else None
        for job in self.watched[:1] if end else self.watched:
            job.id = request.job_id
            yield job_service_pb2.WatchJobResponse(job=job)
        if end:
            context.abort_with_status(end)
        while self.watch_stays_open and context.is_active() and not self._stopped.wait(0.05):
            pass

    def CancelJob(self, request: Any, context: Context) -> job_service_pb2.CancelJobResponse:
        self._enter("CancelJob", request, context)
        return job_service_pb2.CancelJobResponse(job=Job(id=request.job_id, cancel_requested=True))

    def UpdateJob(self, request: Any, context: Context) -> job_service_pb2.UpdateJobResponse:
        self._enter("UpdateJob", request, context)
        return job_service_pb2.UpdateJobResponse(job=self.watched[0])

    def ReadLogs(self, request: Any, context: Context) -> Iterator[job_service_pb2.ReadLogsResponse]:
        self._enter("ReadLogs", request, context)
        yield from self.chunks
        end = self.breaks.popleft() if self.breaks else None
        if end:
            context.abort_with_status(end)

    def ListEndpoints(self, request: Any, context: Context) -> job_service_pb2.ListEndpointsResponse:
        self._enter("ListEndpoints", request, context)
        page, token = self._page(self.endpoints, request.page_token)
        return job_service_pb2.ListEndpointsResponse(endpoints=page, next_page_token=token)

    def UploadBundle(self, request: Any, context: Context) -> job_service_pb2.UploadBundleResponse:
        self._enter("UploadBundle", request, context)
        stored = self.bundles.setdefault(request.bundle.sha256, bytearray())
        if request.offset_bytes == len(stored):
            stored += request.data
        return job_service_pb2.UploadBundleResponse(stored_bytes=len(stored))

    def ReadOutput(self, request: Any, context: Context) -> job_service_pb2.ReadOutputResponse:
        self._enter("ReadOutput", request, context)
        output = self.outputs[request.allocation_id]
        start = request.offset_bytes
        return job_service_pb2.ReadOutputResponse(data=output[start : start + 100])

    def PlanJob(self, request: Any, context: Context) -> job_service_pb2.PlanJobResponse:
        self._enter("PlanJob", request, context)
        return self.planned

    def ExplainJob(self, request: Any, context: Context) -> job_service_pb2.ExplainJobResponse:
        self._enter("ExplainJob", request, context)
        return job_service_pb2.ExplainJobResponse(
            explanations=self.planned.explanations, disconnects=self.disconnects
        )

    def ListJobEvents(self, request: Any, context: Context) -> job_service_pb2.ListJobEventsResponse:
        self._enter("ListJobEvents", request, context)
        page, token = self._page(self.events, request.page_token)
        return job_service_pb2.ListJobEventsResponse(events=page, next_page_token=token)

    def GetShare(self, request: Any, context: Context) -> job_service_pb2.GetShareResponse:
        self._enter("GetShare", request, context)
        return job_service_pb2.GetShareResponse(share=self.share)

    def ListSites(self, request: Any, context: Context) -> fleet_service_pb2.ListSitesResponse:
        self._enter("ListSites", request, context)
        page, token = self._page(self.sites, request.page_token)
        return fleet_service_pb2.ListSitesResponse(
            sites=page, next_page_token=token, disconnect_brake=self.brake
        )

    def ReleaseDisconnectBrake(
        self, request: Any, context: Context
    ) -> fleet_service_pb2.ReleaseDisconnectBrakeResponse:
        self._enter("ReleaseDisconnectBrake", request, context)
        self.brake.Clear()
        return fleet_service_pb2.ReleaseDisconnectBrakeResponse(disconnect_brake=self.brake)

    def ListNodes(self, request: Any, context: Context) -> fleet_service_pb2.ListNodesResponse:
        self._enter("ListNodes", request, context)
        page, token = self._page(self.nodes, request.page_token)
        return fleet_service_pb2.ListNodesResponse(nodes=page, next_page_token=token)

    def ListZones(self, request: Any, context: Context) -> fleet_service_pb2.ListZonesResponse:
        self._enter("ListZones", request, context)
        page, token = self._page(self.zones, request.page_token)
        return fleet_service_pb2.ListZonesResponse(zones=page, next_page_token=token)

    def ListLinks(self, request: Any, context: Context) -> fleet_service_pb2.ListLinksResponse:
        self._enter("ListLinks", request, context)
        page, token = self._page(self.links, request.page_token)
        return fleet_service_pb2.ListLinksResponse(links=page, next_page_token=token)

    def GetSite(self, request: Any, context: Context) -> fleet_service_pb2.GetSiteResponse:
        self._enter("GetSite", request, context)
        return fleet_service_pb2.GetSiteResponse(site=next(s for s in self.sites if s.id == request.site_id))

    def OptimizeFleet(self, request: Any, context: Context) -> planning_service_pb2.OptimizeFleetResponse:
        self._enter("OptimizeFleet", request, context)
        return self.optimized

    def WhatIf(self, request: Any, context: Context) -> planning_service_pb2.WhatIfResponse:
        self._enter("WhatIf", request, context)
        return self.supposed

    def _enter(self, method: str, request: Any, context: Context) -> None:
        self.metadata = {key: str(value) for key, value in context.invocation_metadata()}
        self.calls.append((method, request))
        waiting = self.refusals.get(method)
        if waiting:
            context.abort_with_status(waiting.popleft())

    def _page(self, items: list[Any], token: str) -> tuple[list[Any], str]:
        start = int(token or 0)
        end = start + self.page_size
        return items[start:end], str(end) if end < len(items) else ""
