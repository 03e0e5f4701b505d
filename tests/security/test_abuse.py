"""What an attacker sends who has a network connection, and perhaps a tenant's token."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from mumian.api.v1 import fleet_service_pb2, job_service_pb2
from mumian.api.v1.fleet_service_pb2_grpc import FleetServiceStub
from mumian.api.v1.job_service_pb2_grpc import JobServiceStub
from mumian_orchestrator.domain.identity import Role

from tests.orchestrator.scripted_agent import ScriptedAgent
from tests.orchestrator.tenant import spec_of
from tests.security.secured import ROOT, Secured, bearer, secured

ZONES = fleet_service_pb2.ListZonesRequest()
CREATE = "/mumian.api.v1.JobService/CreateJob"
SLOW_CONNECTIONS = 400  # of one machine's file descriptors; each costs the coordinator the same


async def refused_code(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return refused.value.code()


async def test_a_token_is_of_no_use_once_it_is_revoked_or_has_expired(tmp_path: Path) -> None:
    async with secured(tmp_path) as platform, platform.people_channel() as channel:
        stub = FleetServiceStub(channel)
        stolen = await platform.token(Role.TENANT_USER, "acme")
        short = await platform.token(Role.TENANT_USER, "acme", lifetime_s=60)
        for token in (stolen, short):
            await stub.ListZones(ZONES, metadata=bearer(token))
        await platform.services.access.tokens.revoke(ROOT, stolen.split("_")[1])
        platform.clock.ahead_s = 61
        for token, told in ((stolen, "was revoked"), (short, "has expired")):
            with pytest.raises(grpc.aio.AioRpcError, match=told) as refused:
                await stub.ListZones(ZONES, metadata=bearer(token))
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        # Only who has the secret is told that much.
        wrong = f"{stolen[:-64]}{'0' * 64}"
        with pytest.raises(grpc.aio.AioRpcError, match="the token is not valid"):
            await stub.ListZones(ZONES, metadata=bearer(wrong))


async def test_what_is_open_by_a_token_ends_when_it_is_revoked(tmp_path: Path) -> None:
    async with secured(tmp_path) as platform, platform.people_channel() as channel:
        token = await platform.token(Role.TENANT_USER, "acme")
        stub = JobServiceStub(channel)
        request = job_service_pb2.CreateJobRequest(request_id="once", spec=spec_of())
        job = (await stub.CreateJob(request, metadata=bearer(token))).job
        watching = stub.WatchJob(job_service_pb2.WatchJobRequest(job_id=job.id), metadata=bearer(token))
        await watching.read()
        await platform.services.access.tokens.revoke(ROOT, token.split("_")[1])
        async with asyncio.timeout(5):
            with pytest.raises(grpc.aio.AioRpcError, match="the token was revoked") as refused:
                while True:
                    await watching.read()
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_tenant_that_guesses_ids_learns_nothing_of_another_not_even_that_they_exist(
    tmp_path: Path,
) -> None:
    async with secured(tmp_path) as platform, platform.people_channel() as channel:
        key = await platform.joined()
        agents_channel = platform.agent_channel(key.pem, key.certificate)
        agent = ScriptedAgent(agents_channel)
        await agent.connect()
        stub, pb = JobServiceStub(channel), job_service_pb2
        acme = bearer(await platform.token(Role.TENANT_USER, "acme"))
        rival = bearer(await platform.token(Role.TENANT_ADMIN, "rival"))
        spec = spec_of("secret-project", cpu_milli=3000)
        job = (await stub.CreateJob(pb.CreateJobRequest(request_id="once", spec=spec), metadata=acme)).job
        await agent.run_of(job.id)

        async def told(job_id: str) -> list[object]:
            answers: list[object] = []
            for call in (
                stub.GetJob(pb.GetJobRequest(job_id=job_id), metadata=rival),
                stub.CancelJob(pb.CancelJobRequest(job_id=job_id), metadata=rival),
                stub.UpdateJob(pb.UpdateJobRequest(job=job_id, spec=spec), metadata=rival),
                stub.ExplainJob(pb.ExplainJobRequest(job_id=job_id), metadata=rival),
                stub.ListJobEvents(pb.ListJobEventsRequest(job_id=job_id), metadata=rival),
                stub.WatchJob(pb.WatchJobRequest(job_id=job_id), metadata=rival).read(),
                stub.ReadLogs(pb.ReadLogsRequest(job_id=job_id), metadata=rival).read(),
                stub.ReadLogs(
                    pb.ReadLogsRequest(job_id=job_id, allocation_id=f"{job_id}.main.0"), metadata=rival
                ).read(),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await call
                details = (refused.value.details() or "").replace(job_id, "ID")
                answers.append((refused.value.code(), details))
            return answers

        assert await told(job.id) == await told("secret-project-00000000")
        assert not (await stub.ListJobs(pb.ListJobsRequest(), metadata=rival)).jobs
        # The same request_id is another tenant's own.
        await stub.CreateJob(
            pb.CreateJobRequest(request_id="once", spec=spec_of(cpu_milli=10)), metadata=rival
        )
        fleet = FleetServiceStub(channel)
        for metadata, cpu_milli, tasks in ((acme, 3000, 1), (rival, 10, 1)):
            async with asyncio.timeout(20):
                while True:
                    sites = await fleet.ListSites(fleet_service_pb2.ListSitesRequest(), metadata=metadata)
                    nodes = await fleet.ListNodes(fleet_service_pb2.ListNodesRequest(), metadata=metadata)
                    usage = sites.sites[0].usage
                    if usage.allocation_count == tasks:
                        break
                    await asyncio.sleep(0.05)
            assert usage.cpu_milli_allocated == nodes.nodes[0].cpu_milli_allocated == cpu_milli
            assert not sites.sites[0].it_power_mw and not sites.sites[0].meters
        operator = bearer(await platform.token(Role.OPERATOR, operator_id="op"))
        seen = await fleet.ListSites(fleet_service_pb2.ListSitesRequest(), metadata=operator)
        assert seen.sites[0].usage.cpu_milli_allocated == 3010
        await agent.disconnect()
        await agents_channel.close()


async def answers(platform: Secured, token: str) -> None:
    """It is well, and somebody with a token is served."""
    async with platform.people_channel() as channel, asyncio.timeout(20):
        await FleetServiceStub(channel).ListZones(ZONES, metadata=bearer(token))


def nested(depth: int) -> bytes:
    """A message within a message, of a field that nobody knows, and so on."""
    return b"\xfb\x07" * depth + b"\xfc\x07" * depth


async def test_oversized_nested_compressed_and_broken_messages_are_refused(
    tmp_path: Path,
) -> None:
    async with secured(tmp_path) as platform:
        token = await platform.token(Role.TENANT_USER, "acme")
        before = psutil.Process().memory_info().rss
        big = [("grpc.max_send_message_length", -1)]
        async with platform.people_channel(big) as channel:
            create: Any = channel.unary_unary(CREATE)
            oversized = create(bytes(5 * 1024 * 1024), metadata=bearer(token))
            assert await refused_code(oversized) is grpc.StatusCode.RESOURCE_EXHAUSTED
            for body in (nested(2_000), nested(1_000_000), b"\x12" * 1000, b"\x0a\xff\xff\xff\xff\x0f"):
                code = await refused_code(create(body, metadata=bearer(token)))
                assert code is grpc.StatusCode.INVALID_ARGUMENT
            # Not even looked at where the caller may not call.
            assert await refused_code(create(nested(1_000_000))) is grpc.StatusCode.UNAUTHENTICATED
            bomb = bytes(64 * 1024 * 1024)
            exploded = create(bomb, metadata=bearer(token), compression=grpc.Compression.Gzip)
            assert await refused_code(exploded) is grpc.StatusCode.UNIMPLEMENTED
            del bomb
        grown = psutil.Process().memory_info().rss - before
        assert grown < 300 * 1024 * 1024, "the sender's own copy is in here too"
        await answers(platform, token)


async def test_many_slow_connections_keep_nobody_else_out(tmp_path: Path) -> None:
    async with secured(tmp_path) as platform:
        token = await platform.token(Role.TENANT_USER, "acme")
        host, port = platform.people.split(":")
        agents_host, agents_port = platform.agents.split(":")
        tls = ssl.create_default_context(cadata=platform.authority.decode())
        tls.set_alpn_protocols(["h2"])
        async with contextlib.AsyncExitStack() as stack:

            async def hang(number: int) -> None:
                # Some say nothing, some begin TLS and stop, some begin HTTP/2 and stop.
                secure = tls if number % 4 == 0 else None
                where = (agents_host, agents_port) if number % 4 == 3 else (host, port)
                _, writer = await asyncio.open_connection(*where, ssl=secure)
                stack.callback(writer.close)
                if number % 4 == 1:
                    writer.write(b"\x16\x03\x01\x02\x00\x01")
                elif secure:
                    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")

            await asyncio.gather(*(hang(number) for number in range(SLOW_CONNECTIONS)))
            await answers(platform, token)
            key = await platform.joined()
            async with platform.agent_channel(key.pem, key.certificate) as channel:
                agent = ScriptedAgent(channel)
                await agent.connect()
                assert agent.error is None
                await agent.disconnect()


async def test_a_request_that_trickles_in_does_not_hold_its_connection_and_a_stream_does(
    tmp_path: Path,
) -> None:
    async with secured(tmp_path, connection_idle_s=1) as platform:
        token = await platform.token(Role.TENANT_USER, "acme")
        tls = ssl.create_default_context(cadata=platform.authority.decode())
        tls.set_alpn_protocols(["h2"])
        async with platform.people_channel() as channel:
            jobs, mine = JobServiceStub(channel), bearer(token)
            request = job_service_pb2.CreateJobRequest(request_id="r", spec=spec_of())
            job = (await jobs.CreateJob(request, metadata=mine)).job
            watching: Any = jobs.WatchJob(job_service_pb2.WatchJobRequest(job_id=job.id), metadata=mine)
            assert (await watching.read()).job.id == job.id
            reader, writer = await asyncio.open_connection(*platform.people.split(":"), ssl=tls)
            settings, head = bytes(3) + b"\x04" + bytes(5), b"\x00\x00\x3c\x01\x04\x00\x00\x00\x01"
            writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings + head)
            ended = asyncio.create_task(_until_the_end(reader))
            sent = 0
            while not ended.done():
                assert sent < 60, "the whole head of the request was taken, however slowly it came"
                writer.write(b"\x00")
                sent += 1
                await asyncio.sleep(0.2)
            writer.close()
            await jobs.CancelJob(job_service_pb2.CancelJobRequest(job_id=job.id), metadata=mine)
            async with asyncio.timeout(20):
                while not (await watching.read()).job.cancel_requested:
                    pass


async def _until_the_end(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(OSError):
        while await reader.read(1024):
            pass


async def test_one_credential_holds_open_only_so_many_streams(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mumian_orchestrator.adapters.grpc.guard.STREAMS_OF_CALLER_MAX", 3)
    async with secured(tmp_path) as platform, platform.people_channel() as channel:
        token = await platform.token(Role.TENANT_USER, "acme")
        stub = JobServiceStub(channel)
        request = job_service_pb2.CreateJobRequest(request_id="once", spec=spec_of())
        job = (await stub.CreateJob(request, metadata=bearer(token))).job
        watch = job_service_pb2.WatchJobRequest(job_id=job.id)
        held = [stub.WatchJob(watch, metadata=bearer(token)) for _ in range(3)]
        for call in held:
            await call.read()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.WatchJob(watch, metadata=bearer(token)).read()
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        held[0].cancel()
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await stub.WatchJob(watch, metadata=bearer(token)).read()
                    break


async def test_strangers_are_shown_no_reflection_and_health_to_everybody(tmp_path: Path) -> None:
    async with secured(tmp_path) as platform, platform.people_channel() as channel:
        check: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert await check(b"") == b"\x08\x01", "SERVING"
        reflect: Any = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await reflect(iter([b""])).read()
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_without_tls_nothing_is_sent_that_the_coordinator_takes(tmp_path: Path) -> None:
    async with secured(tmp_path) as platform:
        token = await platform.token(Role.TENANT_USER, "acme")
        async with grpc.aio.insecure_channel(platform.people) as channel:
            call = FleetServiceStub(channel).ListZones(ZONES, metadata=bearer(token), timeout=5)
            assert await refused_code(call) is grpc.StatusCode.UNAVAILABLE
