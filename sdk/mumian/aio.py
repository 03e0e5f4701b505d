"""The client for programs with asyncio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from mumian import calls
from mumian.api.v1 import job_pb2
from mumian.api.v1.access_pb2 import ApiToken, EnrolledSite, Identity, Role
from mumian.api.v1.access_service_pb2 import (
    CreateApiTokenResponse,
    CreateSiteTokenResponse,
    ReadAuditLogResponse,
)
from mumian.api.v1.fleet_pb2 import DisconnectBrake, Link, Node, Site, Zone
from mumian.api.v1.job_event_pb2 import JobEvent
from mumian.api.v1.job_pb2 import Bundle, Job, JobSpec
from mumian.api.v1.job_service_pb2 import (
    ExplainJobResponse,
    PlanJobResponse,
    ReadLogsResponse,
    TaskEndpoint,
)
from mumian.api.v1.money_pb2 import Budget, Fund, MoneyDocument, Statement, StatementLine
from mumian.api.v1.money_service_pb2 import GetCityReportResponse
from mumian.api.v1.ops_service_pb2 import DiagnoseResponse
from mumian.api.v1.planning_pb2 import FleetChange
from mumian.api.v1.planning_service_pb2 import OptimizeFleetResponse, WhatIfResponse
from mumian.api.v1.secret_pb2 import Secret
from mumian.api.v1.share_pb2 import Share
from mumian.calls import TERMINAL_STATES, Call, Item, Listing, Result
from mumian.connection import Attempts, Connection, Endpoints, no_end_in_time
from mumian.errors import MumianError
from mumian.submissions import Submissions
from mumian.submit_line import SubmitLine


class AsyncClient:
    """A tenant's connection to a coordinator, made and used in one event loop.

    Every method raises MumianError. Calls that nobody answered are tried again, under the same request_id,
    until `timeout_s` is over.

    Args:
        coordinator: host:port, or several with commas; default: MUMIAN_COORDINATOR, then 127.0.0.1:7070.
        tenant: default: MUMIAN_TENANT, then the token's own, then "default".
        token: proof of who calls; default: MUMIAN_TOKEN.
        token_file: a file with the token that nobody else can read; default: MUMIAN_TOKEN_FILE.
        ca_file: who must have issued the coordinator's certificate (PEM); default: MUMIAN_CA, then the
            system's authorities. To other machines there is always TLS; within this one with a ca_file.
        timeout_s: for one call with all its tries.
        connect_timeout_s: the same while no coordinator has ever answered.
    """

    def __init__(
        self,
        coordinator: str | None = None,
        *,
        tenant: str | None = None,
        token: str | None = None,
        token_file: str | Path | None = None,
        ca_file: str | Path | None = None,
        timeout_s: float = 15.0,
        connect_timeout_s: float = 3.0,
    ) -> None:
        self._connection = Connection.resolve(
            coordinator, tenant, timeout_s, connect_timeout_s, token, token_file, ca_file
        )
        self._endpoints = Endpoints(self._connection, self._open)
        self._answered = False
        self._submits = SubmitLine(self._unary, self._connection.timeout_s)

    @property
    def address(self) -> str:
        """Where the coordinators are, in words."""
        return self._connection.address

    async def close(self) -> None:
        """Break off what is under way and close the connection."""
        for channel in self._endpoints.all():
            await channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def submit(self, spec: JobSpec, request_id: str | None = None) -> Job:
        """Store a job; when this returns, it is durable. The same request_id gives the same job.

        Jobs that are submitted while two requests are under way share the next one.
        """
        return await self._submits.submit(spec, request_id)

    async def submit_many(
        self, specs: Sequence[JobSpec], request_ids: Sequence[str] | None = None
    ) -> Sequence[Job | MumianError]:
        """Store many jobs, in as few requests as they need; when this returns, those with a job are durable.

        What the coordinator has no room for now is sent again, as `submit` does. Nothing is raised for a job
        that is refused, because others may be stored: look at each outcome.

        Args:
            request_ids: one for each spec; the same id gives the same job.

        Returns:
            For each spec, in order, its job or the MumianError that says why there is none.
        """
        submissions = Submissions(specs, request_ids, self._connection.timeout_s)
        while (call := submissions.next_call()) is not None:
            try:
                submissions.take(await self._unary(call))
            except MumianError as error:
                submissions.fail(error)
            await asyncio.sleep(submissions.pause_s)
        return submissions.outcomes

    async def upload(self, folder: Path | str) -> Bundle:
        """Store a folder that tasks are to start in; what is stored already is not sent again.

        `mumian.task_group(upload=...)` takes what this returns.
        """
        from mumian import bundles  # few jobs have any, and every command would pay for its modules

        with bundles.packed(folder) as (bundle, file):
            stored_bytes = await self._unary(calls.upload(bundle, 0, b""))
            while stored_bytes < bundle.size_bytes:
                file.seek(stored_bytes)
                piece = file.read(bundles.PIECE_BYTES)
                stored_bytes = await self._unary(calls.upload(bundle, stored_bytes, piece))
        return bundle

    async def fetch(self, job_id: str, allocation_id: str, folder: Path | str) -> Sequence[Path]:
        """Write what a task has left (its group's `outputs`) into a folder; the files, relative to it.

        A file that is there under the same name is replaced.
        """
        offset_bytes = 0
        from mumian import bundles  # few jobs have any, and every command would pay for its modules

        with bundles.receiving() as file:
            while piece := await self._unary(calls.read_output(job_id, allocation_id, offset_bytes)):
                file.write(piece)
                offset_bytes += len(piece)
            return bundles.unpacked(file, Path(folder))

    async def plan(self, spec: JobSpec) -> PlanJobResponse:
        """Where a job would go now. Reserves nothing."""
        return await self._unary(calls.plan(spec))

    async def get(self, job_id: str) -> Job:
        """One job with its explanations and allocations."""
        return await self._unary(calls.get(job_id))

    def list(
        self, states: Sequence[job_pb2.JobState.ValueType] = (), *, archived: bool = False
    ) -> AsyncIterator[Job]:
        """The tenant's jobs, newest first, without explanations; pages are fetched as needed.

        Args:
            states: only those in one of them; none: in any.
            archived: with those that have ended long ago, and were put away.
        """
        return self._pages(calls.list_jobs(states, archived=archived))

    def watch(self, job_id: str, *, timeout_s: float | None = None) -> AsyncGenerator[Job, None]:
        """The job as it is, then at every change, until it is terminal.

        Survives a restart of the coordinator, after which the same state may come again. A program that
        stops reading before the end closes it (`contextlib.aclosing`).

        Raises:
            TimeoutError: it is not terminal after `timeout_s`.
        """
        return self._stream(calls.watch(job_id), job_id, timeout_s)

    async def wait(self, job_id: str, *, timeout_s: float | None = None) -> Job:
        """The job when it has ended.

        Raises:
            TimeoutError: it has not ended after `timeout_s`.
        """
        async with aclosing(self.watch(job_id, timeout_s=timeout_s)) as states:
            async for job in states:
                if job.state in TERMINAL_STATES:
                    return job
        return await self.get(job_id)

    async def update(self, job: str, spec: JobSpec) -> Job:
        """Replace the tasks of a service by those of a newer spec, one by one.

        The job's `rollout` shows how it goes, until it is unset.

        Args:
            job: its id, or its name: then the newest job of that name that has not ended.
        """
        return await self._unary(calls.update(job, spec))

    async def cancel(self, job_id: str) -> Job:
        """Ask a job to stop. It is CANCELLED when its tasks have stopped."""
        return await self._unary(calls.cancel(job_id))

    def logs(
        self, job_id: str, allocation_id: str = "", *, follow: bool = False, tail_bytes: int = 0
    ) -> AsyncGenerator[bytes, None]:
        """What one allocation has written, in chunks, standard output and error as they came.

        Args:
            allocation_id: default: the newest allocation of the first task.
            follow: go on until the allocation ends.
            tail_bytes: only the last so many bytes of what is there; 0: all.
        """
        chunks = self.log_chunks(job_id, allocation_id, follow=follow, tail_bytes=tail_bytes)
        return (chunk.data async for chunk in chunks)

    def log_chunks(
        self, job_id: str, allocation_id: str = "", *, follow: bool = False, tail_bytes: int = 0
    ) -> AsyncGenerator[ReadLogsResponse, None]:
        """The same as `logs`, each chunk with its allocation and stream."""
        return self._stream(calls.logs(job_id, allocation_id, follow, tail_bytes), job_id)

    async def endpoints(self, job: str, *, zone: str = "") -> Sequence[TaskEndpoint]:
        """Where a job's tasks answer: of those that run and are well.

        Args:
            job: its id, or its name: then the newest job of that name that has not ended.
            zone: if set, each has its round-trip time from there, and the nearest is the first.
        """
        return calls.nearest_first([each async for each in self._pages(calls.endpoints(job, zone))])

    async def explain(self, job_id: str) -> ExplainJobResponse:
        """Why a job is where it is, or why it waits as things are now."""
        return await self._unary(calls.explain(job_id))

    def events(self, job_id: str) -> AsyncIterator[JobEvent]:
        """What has happened to a job, oldest first; the newest events are kept, at least 128."""
        return self._pages(calls.events(job_id))

    async def put_secret(self, name: str, value: str | bytes) -> Secret:
        """Make a secret of the tenant, or give it a new value: nobody sees it but tasks that name it."""
        return await self._unary(calls.put_secret(name, value.encode() if isinstance(value, str) else value))

    def secrets(self) -> AsyncIterator[Secret]:
        """The tenant's secrets in order of name, without their values."""
        return self._pages(calls.secrets_of_tenant())

    async def delete_secret(self, name: str) -> None:
        """Forget a secret that no job names any more."""
        await self._unary(calls.delete_secret(name))

    async def share(self) -> Share:
        """What the tenant holds of the fleet, and what it may."""
        return await self._unary(calls.share())

    def sites(self) -> AsyncIterator[Site]:
        """The fleet's sites in order of id."""
        return self._pages(calls.sites())

    async def disconnect_brake(self) -> DisconnectBrake:
        """Whether the replacement of lost tasks is held back, and why."""
        return await self._unary(calls.disconnect_brake())

    async def release_disconnect_brake(self) -> DisconnectBrake:
        """Let lost tasks be replaced though many sites are silent. For operators."""
        return await self._unary(calls.release_disconnect_brake())

    def nodes(self, site_id: str = "") -> AsyncIterator[Node]:
        """The nodes of one site, or of all."""
        return self._pages(calls.nodes(site_id))

    def zones(self) -> AsyncIterator[Zone]:
        """The places that latency is counted from."""
        return self._pages(calls.zones())

    def links(self, from_id: str = "") -> AsyncIterator[Link]:
        """Round-trip times to the sites from one zone or site, or from all."""
        return self._pages(calls.links(from_id))

    async def optimize_fleet(
        self, *, dry_run: bool = False, moves_max: int | None = None, time_limit_ms: int = 0
    ) -> OptimizeFleetResponse:
        """For operators: look at all jobs together and, unless `dry_run`, move services where that pays.

        Args:
            moves_max: most services that move; default: as the coordinator is configured.
            time_limit_ms: for the search; 0: as configured.
        """
        return await self._unary(calls.optimize_fleet(dry_run, moves_max, time_limit_ms))

    async def what_if(
        self, changes: Sequence[FleetChange], *, moves_max: int | None = None, time_limit_ms: int = 0
    ) -> WhatIfResponse:
        """For operators: how the fleet would fare after some changes. Nothing happens."""
        return await self._unary(calls.what_if(changes, moves_max, time_limit_ms))

    async def identity(self) -> Identity:
        """Who the coordinator takes this client for, and what it may do."""
        return await self._unary(calls.identity())

    async def create_api_token(
        self,
        role: Role.ValueType,
        title: str,
        *,
        tenant_id: str = "",
        operator_id: str = "",
        lifetime_s: int = 0,
    ) -> CreateApiTokenResponse:
        """For admins: a new token with its secret, which is told only here. lifetime_s: 0 is 90 days."""
        return await self._unary(calls.create_api_token(role, title, tenant_id, operator_id, lifetime_s))

    def api_tokens(self) -> AsyncIterator[ApiToken]:
        """For admins: the tokens that the caller may manage, in order of id."""
        return self._pages(calls.api_tokens())

    async def revoke_api_token(self, token_id: str) -> ApiToken:
        """For admins: end a token now, and what is open by it."""
        return await self._unary(calls.revoke_api_token(token_id))

    async def create_site_token(self, site_id: str, *, operator_id: str = "") -> CreateSiteTokenResponse:
        """For operators: a token by which one agent can join as a site, once, within 15 minutes."""
        return await self._unary(calls.create_site_token(site_id, operator_id))

    def enrolled_sites(self) -> AsyncIterator[EnrolledSite]:
        """For operators: the sites that may connect, and those that were revoked."""
        return self._pages(calls.enrolled_sites())

    async def revoke_site(self, site_id: str) -> EnrolledSite:
        """For operators: keep a site out from now on."""
        return await self._unary(calls.revoke_site(site_id))

    def audit_log(self) -> AsyncIterator[ReadAuditLogResponse]:
        """For auditors: the audit log, oldest entry first; the last response has its head."""
        return self._stream(calls.audit_log(), "")

    async def set_budget(
        self, tenant_id: str, *, month_microcny: int | None = None, year_microcny: int | None = None
    ) -> Budget:
        """For the platform's admins: limit what a tenant may spend; None leaves a limit as it is."""
        return await self._unary(calls.set_budget(tenant_id, month_microcny, year_microcny))

    async def remove_budget(self, tenant_id: str, *, month: bool = False, year: bool = False) -> Budget:
        """For the platform's admins: take a tenant's limits away, those named or both."""
        return await self._unary(calls.remove_budget(tenant_id, month=month, year=year))

    async def budget(self) -> Budget:
        """What the tenant may spend, and what it has."""
        return await self._unary(calls.budget())

    async def statement(self, period: str = "") -> Statement:
        """The tenant's account of a month or a year ("2026-11", "2026"); default: this month."""
        return await self._statement(calls.statement, period)

    async def operator_statement(self, operator_id: str = "", period: str = "") -> Statement:
        """For operators: what an operator's sites have earned; default: the caller's own, this month."""
        return await self._statement(partial(calls.operator_statement, operator_id), period)

    async def _statement(self, call: Callable[[str, str], calls.Call[Statement]], period: str) -> Statement:
        """With all its lines; pages are fetched as needed."""
        made = await self._unary(call(period, ""))
        while made.next_page_token:
            more = await self._unary(call(made.period, made.next_page_token))
            made.lines.extend(more.lines)
            made.next_page_token = more.next_page_token
        return made

    async def apply_money_document(self, text: str) -> MoneyDocument:
        """Publish a price list, or the city's vouchers, registry or ceilings of PUE, as YAML."""
        return await self._unary(calls.apply_money_document(text))

    async def money_documents(self) -> Sequence[MoneyDocument]:
        """What is published, as far as the caller may see it."""
        return await self._unary(calls.money_documents())

    async def refund(
        self,
        allocation_id: str,
        microcny: int = 0,
        *,
        reason: str,
        clawback: bool = False,
        request_id: str | None = None,
    ) -> StatementLine:
        """For the platform's admins: give back what an allocation was charged (0: all that is left), or take
        vouchers back from its tenant. The same request_id changes nothing again.
        """
        return await self._unary(calls.refund(allocation_id, microcny, reason, request_id, clawback=clawback))

    async def voucher_funds(self) -> Sequence[Fund]:
        """For the city: the pools of vouchers, and what each enterprise has had of them."""
        return await self._unary(calls.voucher_funds())

    async def city_report(self, year: str = "") -> GetCityReportResponse:
        """For the city: its report on a year; default: this year."""
        return await self._unary(calls.city_report(year))

    async def diagnose(self) -> DiagnoseResponse:
        """How the platform is: its store, its leader, its agents, its queues, and what to do."""
        return await self._unary(calls.diagnose())

    def _open(self, address: str, options: Sequence[tuple[str, int]]) -> grpc.aio.Channel:
        credentials = self._connection.credentials(address)
        if credentials is None:
            return grpc.aio.insecure_channel(address, options)
        return grpc.aio.secure_channel(address, credentials, options)

    async def _unary(self, call: Call[Result]) -> Result:
        attempts = Attempts(self._connection, answered=self._answered)
        attempts.check(call.request)
        while True:
            send = self._endpoints.channel.unary_unary(
                call.path, request_serializer=_serialise, response_deserializer=call.parse
            )
            try:
                result = await send(
                    call.request, timeout=attempts.timeout_s(), metadata=self._connection.metadata
                )
            except grpc.RpcError as error:
                pause_s = attempts.pause_after_s(error)
                if not attempts.is_to_stay:
                    self._endpoints.move_on()
            else:
                self._answered = True
                return result
            await asyncio.sleep(pause_s)

    async def _pages(self, listing: Listing[Item]) -> AsyncIterator[Item]:
        token = ""
        while True:
            page = await self._unary(listing(token))
            for item in page.items:
                yield item
            token = page.next_token
            if not token:
                return

    async def _stream(
        self, call: Call[Result], job_id: str, timeout_s: float | None = None
    ) -> AsyncGenerator[Result, None]:
        attempts = Attempts(self._connection, answered=self._answered)
        end_s = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            send = self._endpoints.channel.unary_stream(
                call.path, request_serializer=_serialise, response_deserializer=call.parse
            )
            worked = False
            left_s = None if end_s is None else max(0.0, end_s - time.monotonic())
            responses = send(call.request, timeout=left_s, metadata=self._connection.metadata)
            try:
                async for response in responses:
                    worked = self._answered = True
                    yield response
                return
            except grpc.RpcError as error:
                if end_s is not None and time.monotonic() >= end_s:
                    raise no_end_in_time(job_id, timeout_s) from None
                pause_s = attempts.pause_after_break_s(error, worked=worked, resumable=call.resumable)
                if not attempts.is_to_stay:
                    self._endpoints.move_on()
            finally:
                responses.cancel()
            await asyncio.sleep(pause_s)


def _serialise(message: Any) -> bytes:
    return bytes(message.SerializeToString())
