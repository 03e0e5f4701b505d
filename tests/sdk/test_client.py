"""The clients against a coordinator that fails on command."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import grpc
import mumian
import pytest
from mumian import AsyncClient, Client, MumianError
from mumian.api.v1 import fleet_pb2, job_pb2
from mumian.api.v1.explanation_pb2 import Explanation
from mumian.api.v1.job_pb2 import Job
from mumian.api.v1.job_service_pb2 import ReadLogsResponse
from mumian_orchestrator.main.free_ports import free_port

from tests.sdk.scripted_coordinator import ScriptedCoordinator, refusal

RUNNING, SUCCEEDED = job_pb2.JOB_STATE_RUNNING, job_pb2.JOB_STATE_SUCCEEDED
HELLO = mumian.job("hello", mumian.task_group(command=["echo", "hello"]))
LOST = refusal(grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE", "the store does not answer")
NOT_LEADER = refusal(grpc.StatusCode.UNAVAILABLE, "NOT_LEADER", "not the leader")


def test_an_unanswered_submit_is_sent_again_under_the_same_request_id(
    coordinator: ScriptedCoordinator,
) -> None:
    coordinator.refuse("CreateJob", NOT_LEADER, LOST)
    with Client() as client:
        job = client.submit(HELLO)
    sent = coordinator.requests("CreateJob")
    assert len(sent) == 3
    assert len({request.request_id for request in sent}) == 1
    assert list(coordinator.job_by_request.values()) == [job]


async def test_the_async_client_sends_it_again_too(coordinator: ScriptedCoordinator) -> None:
    coordinator.refuse("CreateJob", NOT_LEADER, LOST)
    async with AsyncClient() as client:
        await client.submit(HELLO)
    assert len({request.request_id for request in coordinator.requests("CreateJob")}) == 1


def test_two_submits_are_two_jobs_unless_the_caller_gives_one_request_id(
    coordinator: ScriptedCoordinator,
) -> None:
    with Client() as client:
        assert client.submit(HELLO).id != client.submit(HELLO).id
        assert client.submit(HELLO, "mine").id == client.submit(HELLO, "mine").id


def test_trying_again_ends_at_the_time_limit_with_the_coordinators_reason(
    coordinator: ScriptedCoordinator,
) -> None:
    coordinator.refuse("CreateJob", *[LOST] * 50)
    with Client(timeout_s=2) as client, pytest.raises(MumianError) as caught:
        client.submit(HELLO)
    assert caught.value.reason == "STORE_UNAVAILABLE"
    assert 1 < len(coordinator.requests("CreateJob")) < 50


def test_an_overloaded_coordinator_is_asked_again_when_it_said_and_not_by_all_at_once(
    coordinator: ScriptedCoordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("mumian.client.time.sleep", pauses.append)
    overloaded = refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", "too many", retry_after_ms=2000)
    coordinator.refuse("CreateJob", *[overloaded] * 3)
    with Client() as client:
        client.submit(HELLO)
    assert len({request.request_id for request in coordinator.requests("CreateJob")}) == 1
    assert len(pauses) == 3
    assert all(2 <= pause <= 3 for pause in pauses)
    assert len(set(pauses)) > 1, "clients that were told the same time come at different ones"


def test_a_refusal_is_not_tried_again_and_names_its_fields(coordinator: ScriptedCoordinator) -> None:
    fields = [("task_groups[0].latency_slo.zone_ids", "('moon') is unknown")]
    coordinator.refuse(
        "CreateJob", refusal(grpc.StatusCode.INVALID_ARGUMENT, "UNKNOWN_ZONE", "no such zone", fields)
    )
    with Client() as client, pytest.raises(MumianError) as caught:
        client.submit(HELLO)
    error = caught.value
    assert (error.reason, error.message) == ("UNKNOWN_ZONE", "no such zone")
    assert [(v.field, v.description) for v in error.field_violations] == fields
    assert len(coordinator.requests("CreateJob")) == 1


def test_the_logs_of_a_silent_site_are_refused_at_once(coordinator: ScriptedCoordinator) -> None:
    coordinator.refuse(
        "ReadLogs", refusal(grpc.StatusCode.UNAVAILABLE, "SITE_UNREACHABLE", "site gz is silent")
    )
    with Client() as client, pytest.raises(MumianError, match="SITE_UNREACHABLE: site gz is silent"):
        list(client.logs("hello-1"))
    assert len(coordinator.requests("ReadLogs")) == 1


def test_a_server_that_is_no_coordinator_is_named_as_such() -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with Client(f"127.0.0.1:{port}") as client, pytest.raises(MumianError) as caught:
            client.get("x")
    finally:
        server.stop(None)
    assert caught.value.reason == "CLIENT_UNREACHABLE"
    assert "something else or another version is there" in caught.value.message


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "no-such-host.invalid:7070"])
def test_nobody_there_names_the_address_and_what_to_do(address: str) -> None:
    address = address.format(port=free_port())
    with Client(address, connect_timeout_s=0.2) as client, pytest.raises(MumianError) as caught:
        client.get("x")
    assert caught.value.reason == "CLIENT_UNREACHABLE"
    assert f"no coordinator answers at {address}" in caught.value.message
    assert "start one with `mumian up` or set MUMIAN_COORDINATOR" in caught.value.message


async def test_nobody_there_is_the_same_for_the_async_client() -> None:
    async with AsyncClient(f"127.0.0.1:{free_port()}", connect_timeout_s=0.2) as client:
        with pytest.raises(MumianError, match=r"CLIENT_UNREACHABLE: .* \(connection refused\)"):
            await client.get("x")


@pytest.mark.parametrize("address", ["nowhere", "host:", "host:0", "host:70000", "ho st:1"])
def test_an_address_that_is_none_is_refused_before_any_call(address: str) -> None:
    with pytest.raises(MumianError, match=r"coordinator .* must be host:port"):
        Client(address)


def test_a_request_over_the_limit_is_refused_with_its_size(coordinator: ScriptedCoordinator) -> None:
    spec = mumian.job("big", mumian.task_group(command=["echo", "x" * (5 * 1024**2)]))
    with Client() as client, pytest.raises(MumianError, match=r"MESSAGE_TOO_LARGE: .*5\.0 MiB.*4\.0 MiB"):
        client.submit(spec)
    assert not coordinator.calls


def test_the_tenant_comes_from_the_argument_then_the_environment_then_is_default(
    coordinator: ScriptedCoordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    for argument, variable in ((None, None), (None, "acme"), ("beta", "acme")):
        if variable:
            monkeypatch.setenv("MUMIAN_TENANT", variable)
        with Client(tenant=argument) as client:
            list(client.zones())
        seen.append(coordinator.metadata["mumian-tenant"])
    assert seen == ["default", "acme", "beta"]


def test_lists_go_through_all_pages(coordinator: ScriptedCoordinator) -> None:
    coordinator.jobs = [Job(id=f"job-{n}", state=RUNNING if n % 2 else SUCCEEDED) for n in range(5)]
    coordinator.sites = [fleet_pb2.Site(id=f"s{n}") for n in range(3)]
    coordinator.nodes = [fleet_pb2.Node(id=f"s1/n{n}") for n in range(5)]
    coordinator.links = [fleet_pb2.Link(from_id="z", to_site_id=f"s{n}") for n in range(3)]
    with Client() as client:
        assert [job.id for job in client.list()] == [f"job-{n}" for n in range(5)]
        assert [job.id for job in client.list([RUNNING])] == ["job-1", "job-3"]
        assert [site.id for site in client.sites()] == ["s0", "s1", "s2"]
        assert len(list(client.nodes("s1"))) == 5
        assert len(list(client.links("z"))) == 3
    assert coordinator.requests("ListNodes")[0].site_id == "s1"


async def test_the_async_client_reads_the_same(coordinator: ScriptedCoordinator) -> None:
    coordinator.jobs = [Job(id=f"job-{n}") for n in range(5)]
    coordinator.watched = [Job(state=RUNNING), Job(state=SUCCEEDED)]
    coordinator.chunks = [ReadLogsResponse(data=b"a"), ReadLogsResponse(data=b"b")]
    coordinator.planned.explanations.append(Explanation(task_group="main"))
    async with AsyncClient() as client:
        assert [job.id async for job in client.list()] == [f"job-{n}" for n in range(5)]
        assert (await client.get("job-1")).id == "job-1"
        assert (await client.wait("job-1")).state == SUCCEEDED
        assert [chunk async for chunk in client.logs("job-1")] == [b"a", b"b"]
        assert (await client.plan(HELLO)).explanations[0].task_group == "main"
        assert (await client.explain("job-1")).explanations[0].task_group == "main"
        assert (await client.cancel("job-1")).cancel_requested


def test_a_watch_survives_a_break_and_ends_with_the_job(coordinator: ScriptedCoordinator) -> None:
    coordinator.watched = [Job(state=RUNNING), Job(state=SUCCEEDED)]
    coordinator.breaks.append(NOT_LEADER)
    with Client() as client:
        assert [job.state for job in client.watch("job-1")] == [RUNNING, RUNNING, SUCCEEDED]
        assert client.wait("job-1").state == SUCCEEDED


def test_logs_that_break_off_are_not_started_over(coordinator: ScriptedCoordinator) -> None:
    coordinator.chunks = [ReadLogsResponse(data=b"half")]
    coordinator.breaks.append(NOT_LEADER)
    read = []
    with Client() as client, pytest.raises(MumianError, match="NOT_LEADER"):
        for chunk in client.logs("job-1", follow=True, tail_bytes=7):
            read.append(chunk)
    assert read == [b"half"]
    assert coordinator.requests("ReadLogs")[0].tail_bytes == 7
