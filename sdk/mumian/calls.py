"""Every request that a client can make, as a value: the sync and the async client only send them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import Message

from mumian.api.v1 import access_service_pb2 as access
from mumian.api.v1 import fleet_service_pb2 as fleet
from mumian.api.v1 import job_pb2
from mumian.api.v1 import job_service_pb2 as jobs
from mumian.api.v1 import money_service_pb2 as money
from mumian.api.v1 import ops_service_pb2 as ops
from mumian.api.v1 import planning_service_pb2 as planning
from mumian.api.v1 import secret_service_pb2 as secrets
from mumian.api.v1.access_pb2 import ApiToken, EnrolledSite, Identity, Role
from mumian.api.v1.fleet_pb2 import DisconnectBrake, Link, Node, Site, Zone
from mumian.api.v1.job_event_pb2 import JobEvent
from mumian.api.v1.job_pb2 import Bundle, Job, JobSpec
from mumian.api.v1.money_pb2 import Budget, Fund, MoneyDocument, Statement, StatementLine
from mumian.api.v1.planning_pb2 import FleetChange
from mumian.api.v1.secret_pb2 import Secret
from mumian.api.v1.share_pb2 import Share

_JOBS = jobs.DESCRIPTOR.services_by_name["JobService"].full_name
_FLEET = fleet.DESCRIPTOR.services_by_name["FleetService"].full_name
_PLANNING = planning.DESCRIPTOR.services_by_name["PlanningService"].full_name
_OPS = ops.DESCRIPTOR.services_by_name["OpsService"].full_name
_MONEY = money.DESCRIPTOR.services_by_name["MoneyService"].full_name
_ACCESS = access.DESCRIPTOR.services_by_name["AccessService"].full_name
_SECRETS = secrets.DESCRIPTOR.services_by_name["SecretService"].full_name
PAGE_SIZE = 500

TERMINAL_STATES = frozenset(
    {job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELLED}
)

Result = TypeVar("Result")
Item = TypeVar("Item")


@dataclass(frozen=True)
class Call(Generic[Result]):
    """One request, and what a caller gets of each response to it."""

    service: str
    method: str
    request: Message
    parse: Callable[[bytes], Result]  # not None: for gRPC that is a response that cannot be read
    # A broken stream may be opened again and goes on with the state as it is then.
    resumable: bool = False

    @property
    def path(self) -> str:
        """Its name on the wire."""
        return f"/{self.service}/{self.method}"


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """Some items of a list, and the token of the next page; empty on the last one."""

    items: Sequence[Item]
    next_token: str


# Gives the request for the page of a token.
Listing = Callable[[str], Call[Page[Item]]]


def submit(spec: JobSpec, request_id: str | None) -> Call[Job]:
    """One job; the same request_id in every try makes it at most one."""
    request = jobs.CreateJobRequest(request_id=request_id or uuid.uuid4().hex, spec=spec)
    return Call(_JOBS, "CreateJob", request, lambda b: jobs.CreateJobResponse.FromString(b).job)


def submit_many(request: jobs.CreateJobsRequest) -> Call[Sequence[jobs.CreateJobsResult]]:
    """Several jobs; each of them as by itself."""
    return Call(_JOBS, "CreateJobs", request, lambda b: jobs.CreateJobsResponse.FromString(b).results)


def plan(spec: JobSpec) -> Call[jobs.PlanJobResponse]:
    """Where a job would go."""
    return Call(_JOBS, "PlanJob", jobs.PlanJobRequest(spec=spec), jobs.PlanJobResponse.FromString)


def get(job_id: str) -> Call[Job]:
    """One job."""
    request = jobs.GetJobRequest(job_id=job_id)
    return Call(_JOBS, "GetJob", request, lambda b: jobs.GetJobResponse.FromString(b).job)


def cancel(job_id: str) -> Call[Job]:
    """The wish that a job stops."""
    request = jobs.CancelJobRequest(job_id=job_id)
    return Call(_JOBS, "CancelJob", request, lambda b: jobs.CancelJobResponse.FromString(b).job)


def update(job: str, spec: JobSpec) -> Call[Job]:
    """The wish that a service becomes what a newer spec says."""
    request = jobs.UpdateJobRequest(job=job, spec=spec)
    return Call(_JOBS, "UpdateJob", request, lambda b: jobs.UpdateJobResponse.FromString(b).job)


def explain(job_id: str) -> Call[jobs.ExplainJobResponse]:
    """Why a job is where it is."""
    request = jobs.ExplainJobRequest(job_id=job_id)
    return Call(_JOBS, "ExplainJob", request, jobs.ExplainJobResponse.FromString)


def events(job_id: str) -> Listing[JobEvent]:
    """What has happened to a job."""

    def parse(data: bytes) -> Page[JobEvent]:
        response = jobs.ListJobEventsResponse.FromString(data)
        return Page(response.events, response.next_page_token)

    return lambda token: Call(
        _JOBS,
        "ListJobEvents",
        jobs.ListJobEventsRequest(job_id=job_id, page_size=PAGE_SIZE, page_token=token),
        parse,
    )


def put_secret(name: str, value: bytes) -> Call[Secret]:
    """Make a secret, or give it a new value."""
    request = secrets.PutSecretRequest(name=name, value=value)
    return Call(_SECRETS, "PutSecret", request, lambda b: secrets.PutSecretResponse.FromString(b).secret)


def secrets_of_tenant() -> Listing[Secret]:
    """The tenant's secrets, without their values."""

    def parse(data: bytes) -> Page[Secret]:
        response = secrets.ListSecretsResponse.FromString(data)
        return Page(response.secrets, response.next_page_token)

    return lambda token: Call(
        _SECRETS,
        "ListSecrets",
        secrets.ListSecretsRequest(page_size=PAGE_SIZE, page_token=token),
        parse,
    )


def delete_secret(name: str) -> Call[secrets.DeleteSecretResponse]:
    """Forget a secret."""
    request = secrets.DeleteSecretRequest(name=name)
    return Call(_SECRETS, "DeleteSecret", request, secrets.DeleteSecretResponse.FromString)


def share() -> Call[Share]:
    """What the tenant holds, and may."""
    request = jobs.GetShareRequest()
    return Call(_JOBS, "GetShare", request, lambda b: jobs.GetShareResponse.FromString(b).share)


def watch(job_id: str) -> Call[Job]:
    """A stream of a job's changes."""
    request = jobs.WatchJobRequest(job_id=job_id)
    return Call(_JOBS, "WatchJob", request, lambda b: jobs.WatchJobResponse.FromString(b).job, resumable=True)


def logs(job_id: str, allocation_id: str, follow: bool, tail_bytes: int) -> Call[jobs.ReadLogsResponse]:
    """A stream of what an allocation has written."""
    request = jobs.ReadLogsRequest(
        job_id=job_id, allocation_id=allocation_id, follow=follow, tail_bytes=tail_bytes
    )
    return Call(_JOBS, "ReadLogs", request, jobs.ReadLogsResponse.FromString)


def endpoints(job: str, zone_id: str) -> Listing[jobs.TaskEndpoint]:
    """Where a job's tasks answer."""

    def parse(data: bytes) -> Page[jobs.TaskEndpoint]:
        response = jobs.ListEndpointsResponse.FromString(data)
        return Page(response.endpoints, response.next_page_token)

    return lambda token: Call(
        _JOBS,
        "ListEndpoints",
        jobs.ListEndpointsRequest(job=job, zone_id=zone_id, page_size=PAGE_SIZE, page_token=token),
        parse,
    )


def upload(bundle: Bundle, offset_bytes: int, data: bytes) -> Call[int]:
    """A piece of a bundle; where the next one begins."""
    request = jobs.UploadBundleRequest(bundle=bundle, offset_bytes=offset_bytes, data=data)
    return Call(
        _JOBS, "UploadBundle", request, lambda b: jobs.UploadBundleResponse.FromString(b).stored_bytes
    )


def read_output(job_id: str, allocation_id: str, offset_bytes: int) -> Call[bytes]:
    """A piece of what a task has left; empty: there is no more."""
    request = jobs.ReadOutputRequest(job_id=job_id, allocation_id=allocation_id, offset_bytes=offset_bytes)
    return Call(_JOBS, "ReadOutput", request, lambda b: jobs.ReadOutputResponse.FromString(b).data)


def nearest_first(found: Iterable[jobs.TaskEndpoint]) -> list[jobs.TaskEndpoint]:
    """By the round-trip time, where it is known; otherwise in the order that they have."""
    return sorted(found, key=lambda each: each.rtt_p99_us if each.HasField("rtt_p99_us") else 1 << 63)


def optimize_fleet(
    dry_run: bool, moves_max: int | None, time_limit_ms: int
) -> Call[planning.OptimizeFleetResponse]:
    """All jobs looked at together."""
    request = planning.OptimizeFleetRequest(dry_run=dry_run, moves_max=moves_max, time_limit_ms=time_limit_ms)
    return Call(_PLANNING, "OptimizeFleet", request, planning.OptimizeFleetResponse.FromString)


def what_if(
    changes: Sequence[FleetChange], moves_max: int | None, time_limit_ms: int
) -> Call[planning.WhatIfResponse]:
    """How the fleet would fare after some changes."""
    request = planning.WhatIfRequest(changes=changes, moves_max=moves_max, time_limit_ms=time_limit_ms)
    return Call(_PLANNING, "WhatIf", request, planning.WhatIfResponse.FromString)


def list_jobs(states: Sequence[job_pb2.JobState.ValueType], *, archived: bool) -> Listing[Job]:
    """The tenant's jobs; `archived`: with those that have ended long ago."""

    def parse(data: bytes) -> Page[Job]:
        response = jobs.ListJobsResponse.FromString(data)
        return Page(response.jobs, response.next_page_token)

    # Jobs hold all their allocations, so their pages are kept small.
    return lambda token: Call(
        _JOBS, "ListJobs", jobs.ListJobsRequest(page_token=token, states=states, archived=archived), parse
    )


def sites() -> Listing[Site]:
    """The fleet's sites."""

    def parse(data: bytes) -> Page[Site]:
        response = fleet.ListSitesResponse.FromString(data)
        return Page(response.sites, response.next_page_token)

    return lambda token: Call(
        _FLEET, "ListSites", fleet.ListSitesRequest(page_size=PAGE_SIZE, page_token=token), parse
    )


def disconnect_brake() -> Call[DisconnectBrake]:
    """The brake on replacements, which comes with every list of sites."""
    request = fleet.ListSitesRequest(page_size=1)
    return Call(
        _FLEET, "ListSites", request, lambda b: fleet.ListSitesResponse.FromString(b).disconnect_brake
    )


def release_disconnect_brake() -> Call[DisconnectBrake]:
    """An operator's wish that lost tasks are replaced."""
    return Call(
        _FLEET,
        "ReleaseDisconnectBrake",
        fleet.ReleaseDisconnectBrakeRequest(),
        lambda b: fleet.ReleaseDisconnectBrakeResponse.FromString(b).disconnect_brake,
    )


def nodes(site_id: str) -> Listing[Node]:
    """The nodes of one site, or of all."""

    def parse(data: bytes) -> Page[Node]:
        response = fleet.ListNodesResponse.FromString(data)
        return Page(response.nodes, response.next_page_token)

    return lambda token: Call(
        _FLEET,
        "ListNodes",
        fleet.ListNodesRequest(page_size=PAGE_SIZE, page_token=token, site_id=site_id),
        parse,
    )


def zones() -> Listing[Zone]:
    """The zones that latency is counted from."""

    def parse(data: bytes) -> Page[Zone]:
        response = fleet.ListZonesResponse.FromString(data)
        return Page(response.zones, response.next_page_token)

    return lambda token: Call(
        _FLEET, "ListZones", fleet.ListZonesRequest(page_size=PAGE_SIZE, page_token=token), parse
    )


def identity() -> Call[Identity]:
    """Who the coordinator takes the caller for."""
    request = access.GetIdentityRequest()
    return Call(_ACCESS, "GetIdentity", request, lambda b: access.GetIdentityResponse.FromString(b).identity)


def create_api_token(
    role: Role.ValueType, title: str, tenant_id: str, operator_id: str, lifetime_s: int
) -> Call[access.CreateApiTokenResponse]:
    """A new token of somebody."""
    request = access.CreateApiTokenRequest(
        role=role, title=title, tenant_id=tenant_id, operator_id=operator_id, lifetime_s=lifetime_s
    )
    return Call(_ACCESS, "CreateApiToken", request, access.CreateApiTokenResponse.FromString)


def api_tokens() -> Listing[ApiToken]:
    """The tokens that the caller may manage."""

    def parse(data: bytes) -> Page[ApiToken]:
        response = access.ListApiTokensResponse.FromString(data)
        return Page(response.tokens, response.next_page_token)

    return lambda token: Call(
        _ACCESS, "ListApiTokens", access.ListApiTokensRequest(page_size=PAGE_SIZE, page_token=token), parse
    )


def revoke_api_token(token_id: str) -> Call[ApiToken]:
    """The end of a token."""
    request = access.RevokeApiTokenRequest(token_id=token_id)
    return Call(
        _ACCESS, "RevokeApiToken", request, lambda b: access.RevokeApiTokenResponse.FromString(b).token
    )


def create_site_token(site_id: str, operator_id: str) -> Call[access.CreateSiteTokenResponse]:
    """A token for one agent to join by."""
    request = access.CreateSiteTokenRequest(site_id=site_id, operator_id=operator_id)
    return Call(_ACCESS, "CreateSiteToken", request, access.CreateSiteTokenResponse.FromString)


def enrolled_sites() -> Listing[EnrolledSite]:
    """The sites that may connect, and those that were revoked."""

    def parse(data: bytes) -> Page[EnrolledSite]:
        response = access.ListEnrolledSitesResponse.FromString(data)
        return Page(response.sites, response.next_page_token)

    return lambda token: Call(
        _ACCESS,
        "ListEnrolledSites",
        access.ListEnrolledSitesRequest(page_size=PAGE_SIZE, page_token=token),
        parse,
    )


def revoke_site(site_id: str) -> Call[EnrolledSite]:
    """The end of a site's connection."""
    request = access.RevokeSiteRequest(site_id=site_id)
    return Call(_ACCESS, "RevokeSite", request, lambda b: access.RevokeSiteResponse.FromString(b).site)


def audit_log() -> Call[access.ReadAuditLogResponse]:
    """A stream of the audit log's entries; the last response has its head."""
    return Call(_ACCESS, "ReadAuditLog", access.ReadAuditLogRequest(), access.ReadAuditLogResponse.FromString)


def set_budget(tenant_id: str, month_microcny: int | None, year_microcny: int | None) -> Call[Budget]:
    """What a tenant may spend; None leaves a limit as it is."""
    request = money.SetBudgetRequest(
        tenant_id=tenant_id, month_microcny=month_microcny, year_microcny=year_microcny
    )
    return Call(_MONEY, "SetBudget", request, lambda b: money.SetBudgetResponse.FromString(b).budget)


def remove_budget(tenant_id: str, *, month: bool, year: bool) -> Call[Budget]:
    """Take a tenant's limits away; neither named: both."""
    request = money.RemoveBudgetRequest(tenant_id=tenant_id, month=month, year=year)
    return Call(_MONEY, "RemoveBudget", request, lambda b: money.RemoveBudgetResponse.FromString(b).budget)


def budget() -> Call[Budget]:
    """The tenant's budget."""
    request = money.GetBudgetRequest()
    return Call(_MONEY, "GetBudget", request, lambda b: money.GetBudgetResponse.FromString(b).budget)


def statement(period: str, page_token: str) -> Call[Statement]:
    """The tenant's account."""
    request = money.GetStatementRequest(period=period, page_token=page_token)
    return Call(_MONEY, "GetStatement", request, lambda b: money.GetStatementResponse.FromString(b).statement)


def operator_statement(operator_id: str, period: str, page_token: str) -> Call[Statement]:
    """An operator's account."""
    return Call(
        _MONEY,
        "GetOperatorStatement",
        money.GetOperatorStatementRequest(operator_id=operator_id, period=period, page_token=page_token),
        lambda b: money.GetOperatorStatementResponse.FromString(b).statement,
    )


def apply_money_document(text: str) -> Call[MoneyDocument]:
    """A document, published."""
    return Call(
        _MONEY,
        "ApplyMoneyDocument",
        money.ApplyMoneyDocumentRequest(text=text),
        lambda b: money.ApplyMoneyDocumentResponse.FromString(b).document,
    )


def money_documents() -> Call[Sequence[MoneyDocument]]:
    """What is published."""
    return Call(
        _MONEY,
        "ListMoneyDocuments",
        money.ListMoneyDocumentsRequest(),
        lambda b: money.ListMoneyDocumentsResponse.FromString(b).documents,
    )


def refund(
    allocation_id: str, microcny: int, reason: str, request_id: str | None, *, clawback: bool
) -> Call[StatementLine]:
    """A correction of what was charged."""
    request = money.RefundAllocationRequest(
        allocation_id=allocation_id,
        microcny=microcny,
        reason=reason,
        clawback=clawback,
        request_id=request_id or uuid.uuid4().hex,
    )
    return Call(
        _MONEY, "RefundAllocation", request, lambda b: money.RefundAllocationResponse.FromString(b).line
    )


def voucher_funds() -> Call[Sequence[Fund]]:
    """Pools of vouchers, and what each enterprise has had of them."""
    request = money.ListVoucherFundsRequest()
    return Call(
        _MONEY, "ListVoucherFunds", request, lambda b: money.ListVoucherFundsResponse.FromString(b).funds
    )


def city_report(year: str) -> Call[money.GetCityReportResponse]:
    """The city's report on a year."""
    request = money.GetCityReportRequest(year=year)
    return Call(_MONEY, "GetCityReport", request, money.GetCityReportResponse.FromString)


def diagnose() -> Call[ops.DiagnoseResponse]:
    """How the platform is."""
    return Call(_OPS, "Diagnose", ops.DiagnoseRequest(), ops.DiagnoseResponse.FromString)


def links(from_id: str) -> Listing[Link]:
    """The links from one zone or site, or all."""

    def parse(data: bytes) -> Page[Link]:
        response = fleet.ListLinksResponse.FromString(data)
        return Page(response.links, response.next_page_token)

    return lambda token: Call(
        _FLEET,
        "ListLinks",
        fleet.ListLinksRequest(page_size=PAGE_SIZE, page_token=token, from_id=from_id),
        parse,
    )
