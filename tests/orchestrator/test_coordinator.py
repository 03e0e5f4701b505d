"""The coordinator as its callers see it: a real process on a real etcd."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import AsyncIterable
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status
from mumian.api.v1 import error_pb2, fleet_pb2, fleet_service_pb2, job_event_pb2, job_pb2, job_service_pb2
from mumian.api.v1.fleet_service_pb2_grpc import FleetServiceStub
from mumian.api.v1.job_service_pb2_grpc import JobServiceStub
from mumian_orchestrator.adapters.grpc.errors import Context, abort
from mumian_orchestrator.domain.errors import overloaded
from mumian_orchestrator.domain.job_events import replay
from mumian_orchestrator.main.free_ports import free_port

from tests.orchestrator.conftest import Coordinator
from tests.orchestrator.scripted_agent import ScriptedAgent
from tests.orchestrator.tenant import Tenant, spec_of

pytestmark = pytest.mark.etcd

RUNNING, SUCCEEDED, FAILED, CANCELLED = (
    job_pb2.ALLOCATION_STATE_RUNNING,
    job_pb2.ALLOCATION_STATE_SUCCEEDED,
    job_pb2.ALLOCATION_STATE_FAILED,
    job_pb2.ALLOCATION_STATE_CANCELLED,
)


def reason_of(error: grpc.aio.AioRpcError) -> tuple[str, list[str]]:
    """The stable reason of a refusal, and its fields at fault."""
    reason, fields = "", []
    status = rpc_status.from_call(error)
    assert status is not None, error
    for detail in status.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo.FromString(detail.value)
            assert info.domain == "mumian.dev"
            reason = info.reason
        else:
            bad = error_details_pb2.BadRequest.FromString(detail.value)
            fields = [violation.field for violation in bad.field_violations]
    return reason, fields


async def test_the_events_of_a_job_tell_its_life_even_after_a_kill(
    coordinator: Coordinator, tenant: Tenant, agent: ScriptedAgent
) -> None:
    job = await tenant.create(spec_of())
    run = await agent.run_of(job.id)
    agent.status(run.allocation.id, RUNNING)
    agent.status(run.allocation.id, SUCCEEDED, exit_code=0)
    await tenant.until(job.id, job_pb2.JOB_STATE_SUCCEEDED)
    coordinator.running.kill()
    coordinator.start()
    events = await tenant.events(job.id)
    assert [job_event_pb2.JobEventKind.Name(e.kind).removeprefix("JOB_EVENT_KIND_") for e in events] == [
        *("SUBMITTED", "PLACED", "REPORTED", "REPORTED")
    ]
    ended = await tenant.get(job.id)
    ended.ClearField("explanations")
    assert replay(events) == ended
    with pytest.raises(grpc.aio.AioRpcError, match="does not exist"):
        await Tenant(coordinator.channel(), "rival").events(job.id)


async def test_a_job_goes_from_submit_to_its_end(tenant: Tenant, agent: ScriptedAgent) -> None:
    job = await tenant.create(spec_of())
    run = await agent.run_of(job.id)
    assert run.allocation.node_id == "gz/n1"
    assert run.task_group.command.argv == ["true"]
    agent.status(run.allocation.id, RUNNING)
    await tenant.until(job.id, job_pb2.JOB_STATE_RUNNING)
    agent.status(run.allocation.id, SUCCEEDED, exit_code=0)
    ended = await tenant.until(job.id, job_pb2.JOB_STATE_SUCCEEDED)
    assert ended.allocations[0].exit_code == 0
    await agent.until(lambda: [c for c in agent.commands if c.status_stored.state == SUCCEEDED])


async def test_a_failed_task_fails_its_job_and_stops_the_others(tenant: Tenant, agent: ScriptedAgent) -> None:
    job = await tenant.create(spec_of(count=2))
    first, second = f"{job.id}.main.0", f"{job.id}.main.1"
    await agent.until(lambda: len([c for c in agent.commands if c.HasField("run")]) == 2)
    agent.status(first, RUNNING)
    agent.status(second, RUNNING)
    agent.status(first, FAILED, exit_code=3)
    await agent.until(lambda: [c for c in agent.commands if c.stop.allocation_id == second])
    agent.status(second, CANCELLED)
    assert "main.0" in (await tenant.until(job.id, job_pb2.JOB_STATE_FAILED)).state_message


async def test_a_terminal_state_never_changes(tenant: Tenant, agent: ScriptedAgent) -> None:
    job = await tenant.create(spec_of())
    run = await agent.run_of(job.id)
    agent.status(run.allocation.id, SUCCEEDED, exit_code=0)
    await tenant.until(job.id, job_pb2.JOB_STATE_SUCCEEDED)
    agent.status(run.allocation.id, FAILED, exit_code=1)
    await agent.until(lambda: [c for c in agent.commands if c.status_stored.state == FAILED])
    assert (await tenant.get(job.id)).state == job_pb2.JOB_STATE_SUCCEEDED


async def test_killed_and_started_again_the_coordinator_has_every_job_and_goes_on(
    coordinator: Coordinator, tenant: Tenant, agent: ScriptedAgent
) -> None:
    running = await tenant.create(spec_of("running"))
    allocation_id = (await agent.run_of(running.id)).allocation.id
    agent.status(allocation_id, RUNNING)
    await tenant.until(running.id, job_pb2.JOB_STATE_RUNNING)
    waiting = await tenant.create(spec_of("waiting", cpu_milli=4000), request_id="the-same")
    coordinator.running.kill()
    await agent.disconnect()
    coordinator.start()
    async with coordinator.channel() as channel:
        tenant = Tenant(channel)
        assert (await tenant.get(running.id)).state == job_pb2.JOB_STATE_RUNNING
        again = await tenant.create(spec_of("waiting", cpu_milli=4000), request_id="the-same")
        assert again.id == waiting.id
        agent = ScriptedAgent(channel, epoch=1)
        await agent.connect(running=(agent.status_of(allocation_id, RUNNING),))
        welcome = agent.welcome()
        assert welcome is not None
        assert [run.allocation.id for run in welcome.allocations] == [allocation_id]
        agent.status(allocation_id, SUCCEEDED, exit_code=0)
        await tenant.until(running.id, job_pb2.JOB_STATE_SUCCEEDED)
        # What it held is free again, so the other job gets its turn.
        assert (await agent.run_of(waiting.id)).allocation.node_id == "gz/n1"
        await agent.disconnect()


async def test_many_jobs_of_one_call_are_stored_each_once_or_refused_for_themselves(
    coordinator: Coordinator, channel: grpc.aio.Channel, tenant: Tenant
) -> None:
    submissions = [
        job_service_pb2.CreateJobRequest(request_id=f"r{number}", spec=spec_of()) for number in range(150)
    ]
    submissions[7].spec.task_groups[0].count = 5000
    request = job_service_pb2.CreateJobsRequest(submissions=submissions)
    answer = await JobServiceStub(channel).CreateJobs(request, metadata=(("mumian-tenant", "acme"),))
    assert [result.WhichOneof("outcome") for result in answer.results] == [
        "refusal" if number == 7 else "job" for number in range(150)
    ]
    refusal = answer.results[7].refusal
    assert refusal.reason == error_pb2.ERROR_REASON_INVALID_FIELD
    assert [violation.field for violation in refusal.field_violations] == ["task_groups"]
    coordinator.running.process.kill()
    coordinator.running.process.wait()
    coordinator.start()
    async with coordinator.channel() as anew:
        for number in (0, 8, 149):
            job = await Tenant(anew).create(spec_of(), request_id=f"r{number}")
            assert job.id == answer.results[number].job.id


async def test_the_same_request_id_gives_the_same_job_and_another_body_is_refused(tenant: Tenant) -> None:
    first = await tenant.create(spec_of(), request_id="r")
    assert (await tenant.create(spec_of(), request_id="r")).id == first.id
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await tenant.create(spec_of("other"), request_id="r")
    assert reason_of(refused.value) == ("REQUEST_ID_REUSED", ["request_id"])
    assert len((await tenant.list()).jobs) == 1


async def test_twenty_racing_submits_of_one_request_make_one_job(tenant: Tenant) -> None:
    jobs = await asyncio.gather(*(tenant.create(spec_of(), request_id="race") for _ in range(20)))
    assert len({job.id for job in jobs}) == 1


async def test_an_impossible_job_waits_with_the_reason_and_is_placed_when_the_world_changes(
    tenant: Tenant, agent: ScriptedAgent
) -> None:
    spec = spec_of()
    slo = spec.task_groups[0].latency_slo
    slo.zone_ids.append("tianhe")
    slo.budget_us = 20_000
    job = await tenant.create(spec)
    waiting = await tenant.watch(job.id, lambda seen: bool(seen.explanations))
    assert "nobody has measured the link from zone tianhe" in waiting.explanations[0].summary
    agent.links(rtt_us=25_000)
    agent.links(rtt_us=5_000)
    assert (await agent.run_of(job.id)).allocation.latency.total_us <= 20_000


async def test_a_cancelled_job_ends_and_stays_ended(tenant: Tenant, agent: ScriptedAgent) -> None:
    job = await tenant.create(spec_of())
    run = await agent.run_of(job.id)
    await tenant.cancel(job.id)
    await agent.until(lambda: [c for c in agent.commands if c.stop.allocation_id == run.allocation.id])
    agent.status(run.allocation.id, CANCELLED)
    await tenant.until(job.id, job_pb2.JOB_STATE_CANCELLED)
    assert (await tenant.cancel(job.id)).state == job_pb2.JOB_STATE_CANCELLED


async def test_a_job_without_a_place_is_cancelled_at_once(tenant: Tenant) -> None:
    job = await tenant.create(spec_of())
    assert (await tenant.cancel(job.id)).state == job_pb2.JOB_STATE_CANCELLED


async def test_another_tenant_sees_nothing(channel: grpc.aio.Channel, tenant: Tenant) -> None:
    job = await tenant.create(spec_of())
    stranger = Tenant(channel, "stranger")
    assert not (await stranger.list()).jobs
    for call in (stranger.get(job.id), stranger.cancel(job.id)):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert reason_of(refused.value)[0] == "JOB_NOT_FOUND"


@pytest.mark.parametrize(
    ("change", "reason", "field"),
    [
        (lambda s: s.ClearField("task_groups"), "INVALID_FIELD", "task_groups"),
        (lambda s: setattr(s, "name", "Bad Name"), "INVALID_FIELD", "name"),
        (lambda s: setattr(s, "priority", 101), "INVALID_FIELD", "priority"),
        (lambda s: setattr(s, "pue_max_permille", 125), "INVALID_FIELD", "pue_max_permille"),
        (
            lambda s: setattr(s, "rent_max_microcny_per_hour", 2**64 - 1),
            "INVALID_FIELD",
            "rent_max_microcny_per_hour",
        ),
        (lambda s: setattr(s.task_groups[0], "count", 10**9), "INVALID_FIELD", "task_groups"),
        (lambda s: s.task_groups[0].ClearField("command"), "INVALID_FIELD", "task_groups[0].command"),
        (lambda s: s.jurisdictions.append(""), "INVALID_FIELD", "jurisdictions"),
        (lambda s: s.task_groups[0].labels.update({"": "x"}), "INVALID_FIELD", "task_groups[0].labels"),
        (lambda s: s.task_groups[0].archs.append("mips"), "INVALID_FIELD", "task_groups[0].archs"),
        (
            lambda s: setattr(s.task_groups[0].resources.accelerators, "milli", 1500),
            "INVALID_FIELD",
            "task_groups[0].resources.accelerators.milli",
        ),
        (
            lambda s: s.task_groups[0].latency_slo.MergeFrom(
                job_pb2.LatencySlo(zone_ids=["mars"], budget_us=1)
            ),
            "UNKNOWN_ZONE",
            "task_groups[0].latency_slo.zone_ids",
        ),
    ],
)
async def test_a_wrong_field_is_named_and_nothing_is_stored(
    tenant: Tenant, change: object, reason: str, field: str
) -> None:
    spec = spec_of()
    change(spec)  # type: ignore[operator]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await tenant.create(spec)
    assert reason_of(refused.value) == (reason, [field])
    assert not (await tenant.list()).jobs


async def test_a_spec_over_the_limit_is_refused_and_the_next_job_is_stored(tenant: Tenant) -> None:
    spec = spec_of()
    spec.task_groups[0].command.environment["DATA"] = "x" * 300_000
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await tenant.create(spec)
    assert reason_of(refused.value) == ("MESSAGE_TOO_LARGE", [])
    assert "293 KiB" in (refused.value.details() or "")
    spec.task_groups[0].command.environment["DATA"] = "x" * 250_000
    jobs = await asyncio.gather(*(tenant.create(spec) for _ in range(8)))
    assert len({job.id for job in jobs}) == 8


async def test_a_refusal_with_more_faults_than_a_status_holds_says_how_many_more(tenant: Tenant) -> None:
    spec = spec_of()
    zones = [f"{'區' * 100}-{number}" for number in range(500)]
    spec.task_groups[0].latency_slo.MergeFrom(job_pb2.LatencySlo(zone_ids=zones, budget_us=1))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await tenant.create(spec)
    reason, fields = reason_of(refused.value)
    assert reason == "UNKNOWN_ZONE"
    status = rpc_status.from_call(refused.value)
    assert status is not None
    info = error_details_pb2.ErrorInfo.FromString(status.details[0].value)
    assert len(fields) + int(info.metadata["fields_left_out"]) == 500
    assert len(fields) >= 5
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await tenant.get("x" * 100_000)
    assert reason_of(refused.value)[0] == "JOB_NOT_FOUND"


async def test_links_from_nowhere_are_refused(channel: grpc.aio.Channel, agent: ScriptedAgent) -> None:
    fleet = FleetServiceStub(channel)
    assert not (await fleet.ListLinks(fleet_service_pb2.ListLinksRequest(from_id="tianhe"))).links
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await fleet.ListLinks(fleet_service_pb2.ListLinksRequest(from_id="tianha"))
    assert reason_of(refused.value)[0] == "SITE_NOT_FOUND"
    assert "known: tianhe, gz" in (refused.value.details() or "")


async def test_reflection_lists_the_services_and_each_is_healthy(
    coordinator: Coordinator, channel: grpc.aio.Channel
) -> None:
    def ask_by_reflection() -> tuple[set[str], set[str]]:
        with grpc.insecure_channel(coordinator.address) as blocking:
            database = ProtoReflectionDescriptorDatabase(blocking)
            described = database.FindFileContainingSymbol("mumian.api.v1.JobService").service[0]
            return set(database.get_services()), {method.name for method in described.method}

    listed, methods = await asyncio.to_thread(ask_by_reflection)
    names = ("Job", "Fleet", "Planning", "Ops", "Money", "Access", "Secret")
    tenants_doors = {f"mumian.api.v1.{name}Service" for name in names}
    ours = {*tenants_doors, "mumian.agent.v1.AgentService", "mumian.agent.v1.EnrolmentService"}
    assert listed == {*ours, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    assert {"CreateJob", "PlanJob", "ExplainJob", "WatchJob"} <= methods
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", *ours):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await health.Check(health_pb2.HealthCheckRequest(service="nobody"))
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def test_pages_hold_every_job_once_newest_first(tenant: Tenant) -> None:
    created = [(await tenant.create(spec_of(f"n{number}"))).id for number in range(7)]
    seen, token = [], ""
    while True:
        page = await tenant.list(page_size=3, page_token=token)
        seen += [job.id for job in page.jobs]
        token = page.next_page_token
        if not token:
            break
    assert seen == created[::-1]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await tenant.list(page_token="made up")
    assert reason_of(refused.value) == ("INVALID_PAGE_TOKEN", ["page_token"])


async def test_an_agent_whose_clock_is_two_hours_off_is_refused(channel: grpc.aio.Channel) -> None:
    agent = ScriptedAgent(channel)
    await agent.connect(clock_off_s=7200)
    assert agent.error is not None
    assert reason_of(agent.error)[0] == "CLOCK_SKEW"
    assert "7200 s ahead" in (agent.error.details() or "")
    assert not (await FleetServiceStub(channel).ListSites(fleet_service_pb2.ListSitesRequest())).sites
    await agent.disconnect()


async def test_a_second_agent_of_a_live_site_is_refused(
    channel: grpc.aio.Channel, agent: ScriptedAgent
) -> None:
    double = ScriptedAgent(channel, epoch=99)
    await double.connect()
    assert double.error is not None
    assert reason_of(double.error)[0] == "SITE_ID_TAKEN"
    assert agent.error is None
    await double.disconnect()


async def test_a_plan_reserves_nothing(tenant: Tenant, agent: ScriptedAgent) -> None:
    request = job_service_pb2.PlanJobRequest(spec=spec_of(cpu_milli=4000))
    for _ in range(2):
        plan = await tenant.jobs.PlanJob(request)
        assert [task.node_id for task in plan.tasks] == ["gz/n1"]
    assert not (await tenant.list()).jobs


async def test_logs_are_read_through_the_site(tenant: Tenant, agent: ScriptedAgent) -> None:
    job = await tenant.create(spec_of())
    await agent.run_of(job.id)
    call = tenant.jobs.ReadLogs(
        job_service_pb2.ReadLogsRequest(job_id=job.id, follow=True), metadata=(("mumian-tenant", "acme"),)
    )
    reading = asyncio.create_task(_collect(call))
    read = await agent.until(lambda: next((c.read_logs for c in agent.commands if c.read_logs.read_id), None))
    assert read.follow
    agent.log_chunk(read.read_id, b"one\n", end=False)
    agent.log_chunk(read.read_id, b"two\n", end=True)
    assert await reading == b"one\ntwo\n"


async def _collect(call: AsyncIterable[job_service_pb2.ReadLogsResponse]) -> bytes:
    return b"".join([response.data async for response in call])


async def test_a_silent_site_becomes_unreachable_and_its_logs_say_so(
    channel: grpc.aio.Channel, tenant: Tenant, agent: ScriptedAgent
) -> None:
    job = await tenant.create(spec_of())
    await agent.run_of(job.id)
    await agent.disconnect()
    fleet = FleetServiceStub(channel)
    get_site = fleet_service_pb2.GetSiteRequest(site_id="gz")
    async with asyncio.timeout(60):
        while (await fleet.GetSite(get_site)).site.health != fleet_pb2.HEALTH_UNREACHABLE:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await _collect(
            tenant.jobs.ReadLogs(
                job_service_pb2.ReadLogsRequest(job_id=job.id), metadata=(("mumian-tenant", "acme"),)
            )
        )
    assert reason_of(refused.value)[0] == "SITE_UNREACHABLE"
    assert (await tenant.get(job.id)).state == job_pb2.JOB_STATE_STARTING


async def test_an_overloaded_coordinator_says_when_to_come_again() -> None:
    class AbortedError(Exception):
        """What the call ends with."""

    class Call:
        async def abort_with_status(self, status: Any) -> None:
            raise AbortedError(dict(status.trailing_metadata)["grpc-status-details-bin"])

    with pytest.raises(AbortedError) as aborted:
        await abort(cast(Context, Call()), overloaded("changes", 1.5))
    status = status_pb2.Status.FromString(aborted.value.args[0])
    assert status.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
    [retry] = [d for d in status.details if d.Is(error_details_pb2.RetryInfo.DESCRIPTOR)]
    assert error_details_pb2.RetryInfo.FromString(retry.value).retry_delay.ToMilliseconds() == 1500


async def test_prometheus_is_told_how_it_goes(tmp_path: Path, etcd_endpoint: str) -> None:
    metrics = f"127.0.0.1:{free_port()}"
    coordinator = Coordinator(tmp_path, etcd_endpoint, metrics=metrics)
    try:
        async with coordinator.channel() as channel:
            await Tenant(channel).create(spec_of())

            def scrape() -> str:
                with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=60) as answer:
                    return str(answer.read().decode())

            told = await asyncio.to_thread(scrape)
        figures = dict(line.rsplit(" ", 1) for line in told.splitlines() if not line.startswith("#"))
        assert figures['mumian_requests_total{queue="changes"}'] == "1.0"
        assert figures["mumian_leading"] == "1.0"
        assert figures["mumian_jobs_without_place"] == "1.0"
        assert float(figures["mumian_loop_stall_max_seconds"]) >= 0
        assert coordinator.running.stop() == 0
    finally:
        coordinator.running.sweep()
