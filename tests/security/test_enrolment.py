"""How a site joins, stays and is thrown out, over the wire; and what is tried against that."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from mumian.agent.v1 import agent_pb2
from mumian.agent.v1 import enrolment_service_pb2 as enrolment
from mumian.agent.v1.agent_service_pb2_grpc import AgentServiceStub
from mumian.agent.v1.enrolment_service_pb2_grpc import EnrolmentServiceStub
from mumian.api.v1 import fleet_pb2, job_pb2, job_service_pb2
from mumian.api.v1.job_service_pb2_grpc import JobServiceStub
from mumian_orchestrator.adapters.clock import SystemClock
from mumian_orchestrator.adapters.memory.key_value import MemoryCluster
from mumian_orchestrator.adapters.x509.authority import X509Authority
from mumian_orchestrator.domain.audit import verify
from mumian_orchestrator.domain.errors import RequestRefusedError
from mumian_orchestrator.domain.identity import Role
from mumian_orchestrator.services.access.site_enrolment import RENEWABLE_AFTER_EXPIRY_S, TOKEN_LIFETIME_S

from tests.orchestrator.scripted_agent import ScriptedAgent
from tests.orchestrator.tenant import spec_of
from tests.orchestrator.test_coordinator import reason_of
from tests.security.secured import ROOT, Secured, SiteKey, bearer, secured

REVOKED_WITHIN_S = 5.0


async def refusal_of_joining(platform: Secured, key: SiteKey, token: str) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await platform.join(key, token)
    return reason_of(refused.value)[0], refused.value.details() or ""


async def renew(platform: Secured, site_id: str, key: SiteKey) -> enrolment.SiteCertificate:
    async with platform.people_channel() as channel:
        request = enrolment.RenewCertificateRequest(site_id=site_id, certificate_request=key.request)
        return (await EnrolmentServiceStub(channel).RenewCertificate(request)).certificate


async def connected(
    platform: Secured, key: SiteKey, site_id: str = "gz"
) -> tuple[ScriptedAgent, grpc.aio.Channel]:
    channel = platform.agent_channel(key.pem, key.certificate)
    agent = ScriptedAgent(channel, site_id)
    await agent.connect()
    return agent, channel


async def test_a_site_joins_once_connects_and_reads_its_own_name_from_the_certificate(tmp_path: Path) -> None:
    async with secured(tmp_path) as platform:
        key = await platform.joined()
        agent, channel = await connected(platform, key)
        assert agent.error is None
        assert platform.services.fleet.is_reachable("gz")
        await agent.disconnect()
        await channel.close()


async def test_a_lost_answer_is_given_again_to_the_same_key_and_to_no_other(tmp_path: Path) -> None:
    async with secured(tmp_path) as platform:
        token, key = await platform.site_token(), SiteKey()
        first = await platform.join(key, token)
        assert await platform.join(key, token) == first
        reason, told = await refusal_of_joining(platform, SiteKey(), token)
        assert reason == "JOIN_REFUSED"
        assert "has been used, by another key; if that was not you, revoke the site" in told
        lines, head = await platform.log()
        verify(lines, head)
        assert [json.loads(line)["outcome"] for line in lines] == ["done", "refused"]


async def test_of_two_keys_that_race_with_one_token_one_joins(tmp_path: Path) -> None:
    async with secured(tmp_path) as platform:
        token = await platform.site_token()
        keys = [SiteKey() for _ in range(8)]
        results = await asyncio.gather(*(platform.join(key, token) for key in keys), return_exceptions=True)
        assert sum(isinstance(result, enrolment.SiteCertificate) for result in results) == 1


async def test_a_token_expires_and_is_worth_nothing_with_another_secret(tmp_path: Path) -> None:
    async with secured(tmp_path) as platform:
        token = await platform.site_token()
        prefix, site_id, token_id, _, sha256 = token.split("_")
        wrong = "_".join([prefix, site_id, token_id, "0" * 64, sha256])
        unknown = "_".join([prefix, site_id, "0" * 10, "0" * 64, sha256])
        texts = (wrong, unknown, "", "x" * 9999)
        told = {await refusal_of_joining(platform, SiteKey(), text) for text in texts}
        assert told == {("JOIN_REFUSED", "the token is not valid")}
        platform.clock.ahead_s = TOKEN_LIFETIME_S + 1
        assert "has expired" in (await refusal_of_joining(platform, SiteKey(), token))[1]


async def test_the_token_is_stored_only_as_a_hash(tmp_path: Path) -> None:
    cluster = MemoryCluster()
    async with secured(tmp_path, cluster) as platform:
        tokens = [await platform.site_token(), await platform.token(Role.AUDITOR)]
    secrets = [tokens[0].split("_")[3], tokens[1].split("_")[2]]
    for secret in secrets:
        for stored in cluster.entries.values():
            assert secret.encode() not in stored.value
            assert bytes.fromhex(secret) not in stored.value


async def test_a_request_that_is_not_signed_by_its_key_or_is_none_is_refused(tmp_path: Path) -> None:
    async with secured(tmp_path) as platform:
        key, token = SiteKey(), await platform.site_token()
        for request in (b"", b"\x30" * 100, key.request[:-4] + b"\0\0\0\0", bytes(100_000)):
            broken = SiteKey()
            broken.request = request
            reason, _ = await refusal_of_joining(platform, broken, token)
            assert reason == "INVALID_FIELD"
        assert await platform.join(key, token), "the token was not used up by what is no request"


async def test_a_revoked_sites_stream_ends_and_its_key_stays_out_until_it_joins_anew(
    tmp_path: Path,
) -> None:
    async with secured(tmp_path) as platform:
        key = await platform.joined()
        agent, channel = await connected(platform, key)
        await platform.services.access.sites.revoke(ROOT, "gz")
        async with asyncio.timeout(REVOKED_WITHIN_S):
            await asyncio.wait(agent._tasks[:1])
        await channel.close()
        again, channel = await connected(platform, key)
        assert again.error is not None and reason_of(again.error)[0] == "SITE_REVOKED"
        with pytest.raises(grpc.aio.AioRpcError, match="was revoked"):
            await renew(platform, "gz", key)
        await channel.close()
        await platform.join(key, await platform.site_token())
        back, channel = await connected(platform, key)
        assert back.error is None
        await back.disconnect()
        await channel.close()


async def test_when_another_key_joins_as_the_site_the_old_one_is_out_at_once(tmp_path: Path) -> None:
    async with secured(tmp_path) as platform:
        old = await platform.joined()
        agent, channel = await connected(platform, old)
        new = await platform.joined()
        async with asyncio.timeout(REVOKED_WITHIN_S):
            await asyncio.wait(agent._tasks[:1])
        await channel.close()
        again, channel = await connected(platform, old)
        assert again.error is not None and reason_of(again.error)[0] == "SITE_REVOKED"
        await channel.close()
        back, channel = await connected(platform, new)
        assert back.error is None
        await back.disconnect()
        await channel.close()


async def test_an_agent_that_claims_another_site_or_operator_is_refused_and_listed(
    tmp_path: Path,
) -> None:
    async with secured(tmp_path) as platform:
        key = await platform.joined("gz", "op")
        await platform.joined("sz", "op")
        agent, channel = await connected(platform, key, "sz")
        assert agent.error is not None and reason_of(agent.error)[0] == "PERMISSION_DENIED"
        await channel.close()
        channel = platform.agent_channel(key.pem, key.certificate)
        other = ScriptedAgent(channel, "gz", site=fleet_pb2.Site(operator_id="rival-op"))
        await other.connect()
        assert other.error is not None and "has joined for operator op" in (other.error.details() or "")
        await channel.close()
        lines, _ = await platform.log()
        refused = [json.loads(line) for line in lines if b'"refused"' in line]
        assert [entry["who"] for entry in refused] == ["site gz", "site gz"]
        assert not platform.services.fleet.is_reachable("sz")


async def test_an_agent_reports_on_nodes_of_its_own_only(tmp_path: Path) -> None:
    async with secured(tmp_path) as platform:
        agent, channel = await connected(platform, await platform.joined())
        victim, victims_channel = await connected(platform, await platform.joined("sz"), "sz")
        foreign = fleet_pb2.Node(id="sz/n1", site_id="sz", arch="x86_64", cpu_milli=1)
        disguised = fleet_pb2.Node(id="sz/n1", site_id="gz", arch="x86_64", cpu_milli=1)
        own = fleet_pb2.Node(id="gz/n2", site_id="gz", arch="x86_64", cpu_milli=2000)
        agent._send(nodes=agent_pb2.NodesReport(nodes=[foreign, disguised, own]))
        async with asyncio.timeout(20):
            while not platform.services.fleet.has_node("gz", "gz/n2"):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert {n.id: n.cpu_milli for n in platform.services.fleet.nodes()} == {"gz/n2": 2000, "sz/n1": 4000}
        for each, its_channel in ((agent, channel), (victim, victims_channel)):
            await each.disconnect()
            await its_channel.close()


async def test_a_site_reads_the_bundles_of_what_runs_there_and_no_others(tmp_path: Path) -> None:
    async with secured(tmp_path) as platform, platform.people_channel() as people:
        tenant = bearer(await platform.token(Role.TENANT_USER, "acme"))
        code = b"secret code of a tenant"
        bundle = job_pb2.Bundle(sha256=hashlib.sha256(code).hexdigest(), size_bytes=len(code))
        jobs = JobServiceStub(people)
        upload = job_service_pb2.UploadBundleRequest(bundle=bundle, data=code)
        await jobs.UploadBundle(upload, metadata=tenant)
        spec = spec_of()
        spec.task_groups[0].command.bundle.CopyFrom(bundle)
        agent, channel = await connected(platform, await platform.joined())
        job = await jobs.CreateJob(
            job_service_pb2.CreateJobRequest(request_id="once", spec=spec), metadata=tenant
        )
        run = await agent.run_of(job.job.id)
        read = agent_pb2.ReadBundleRequest(allocation_id=run.allocation.id)
        assert (await AgentServiceStub(channel).ReadBundle(read)).data == code
        other = await platform.joined("sz")
        async with platform.agent_channel(other.pem, other.certificate) as foreign:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await AgentServiceStub(foreign).ReadBundle(read)
            assert reason_of(refused.value)[0] == "BUNDLE_NOT_FOUND"
        await agent.disconnect()
        await channel.close()


async def test_a_certificate_is_renewed_for_the_key_that_has_it_and_for_a_while_after_it_expired(
    tmp_path: Path,
) -> None:
    async with secured(tmp_path) as platform:
        key = await platform.joined()
        assert (await renew(platform, "gz", key)).certificate == key.certificate, "it is fresh"
        platform.clock.ahead_s = 86_400 // 4
        fresh = await platform.services.access.sites.renew("here", "gz", key.request)
        assert fresh.certificate != key.certificate
        platform.clock.ahead_s = 0
        told = set()
        for site_id, other in (("gz", SiteKey()), ("nobody", SiteKey()), ("nobody", key)):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await renew(platform, site_id, other)
            told.add((reason_of(refused.value)[0], refused.value.details()))
        assert told == {("JOIN_REFUSED", "the key is of no site that has joined")}
        platform.clock.ahead_s = 86_400 + RENEWABLE_AFTER_EXPIRY_S - 60
        assert await platform.services.access.sites.renew("here", "gz", key.request)


async def test_a_certificate_that_expired_long_ago_is_not_renewed(tmp_path: Path) -> None:
    async with secured(tmp_path) as platform:
        key = await platform.joined()
        platform.clock.ahead_s = 86_400 + RENEWABLE_AFTER_EXPIRY_S + 60
        with pytest.raises(RequestRefusedError, match="expired 30 days ago; join by a new token"):
            await platform.services.access.sites.renew("here", "gz", key.request)


async def test_certificates_of_another_authority_expired_or_none_do_not_open_the_agents_door(
    tmp_path: Path,
) -> None:
    async with secured(tmp_path / "ours") as platform:
        key = await platform.joined()
        foreign = X509Authority.embedded(tmp_path / "theirs", SystemClock())
        short = X509Authority.embedded(tmp_path / "ours", SystemClock(), lifetime_s=1)
        forged = foreign.issue_for_site("gz", key.request).certificate
        expired = short.issue_for_site("gz", key.request).certificate
        await asyncio.sleep(2)
        for certificate in (forged, expired):
            async with platform.agent_channel(key.pem, certificate) as channel:
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await AgentServiceStub(channel).Connect().read()
                assert refused.value.code() is grpc.StatusCode.UNAVAILABLE, "it ends in the TLS handshake"
        credentials = grpc.ssl_channel_credentials(platform.authority)
        async with grpc.aio.secure_channel(platform.agents, credentials) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await AgentServiceStub(channel).Connect().read()
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        async with grpc.aio.secure_channel(
            platform.people, grpc.ssl_channel_credentials(foreign.pem)
        ) as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await EnrolmentServiceStub(channel).Join(enrolment.JoinRequest())


async def test_who_has_stolen_a_certificate_without_its_key_can_forward_it_to_nobody(tmp_path: Path) -> None:
    async with secured(tmp_path) as platform:
        victim, thief = await platform.joined("sz"), await platform.joined("gz")
        stolen = (("mumian-forwarded-certificate-bin", victim.certificate), ("mumian-forwarded", "1"))
        async with platform.agent_channel(thief.pem, thief.certificate) as channel:
            with pytest.raises(grpc.aio.AioRpcError, match="only coordinators may forward"):
                await AgentServiceStub(channel).Connect(metadata=stolen).read()
        async with platform.people_channel() as channel:
            with pytest.raises(grpc.aio.AioRpcError, match="only coordinators may forward"):
                await AgentServiceStub(channel).Connect(metadata=stolen).read()
        async with platform.coordinator_channel() as channel:
            agent = ScriptedAgent(channel, "sz")
            call = AgentServiceStub(channel).Connect(metadata=stolen)
            agent._send(hello=agent_pb2.Hello(site=fleet_pb2.Site(id="gz", operator_id="op")))
            await call.write(agent._reports.get_nowait())
            with pytest.raises(grpc.aio.AioRpcError, match="the agent says that it is another"):
                await call.read()


async def test_a_stream_ends_when_its_certificate_expires_and_not_before(tmp_path: Path) -> None:
    async with secured(tmp_path, certificate_lifetime_s=3) as platform:
        key = await platform.joined()
        agent, channel = await connected(platform, key)
        assert agent.error is None
        async with asyncio.timeout(20):
            await asyncio.wait(agent._tasks[:1])
        await channel.close()


async def test_a_token_in_the_wrong_place_is_no_token(tmp_path: Path) -> None:
    async with secured(tmp_path) as platform, platform.people_channel() as channel:
        site_token = await platform.site_token()
        list_zones: Any = channel.unary_unary("/mumian.api.v1.FleetService/ListZones")
        for metadata in (bearer(site_token), bearer(""), (("authorization", "Basic cm9vdDpyb290"),)):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await list_zones(b"", metadata=metadata)
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
