"""What `mumian-agent doctor` says of a coordinator with TLS, and of a site's certificate."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
from mumian.agent.v1.agent_pb2 import AgentReport, Hello
from mumian.agent.v1.agent_service_pb2_grpc import AgentServiceStub
from mumian.api.v1.ops_service_pb2 import FINDING_STATE_FAIL, FINDING_STATE_OK, FINDING_STATE_WARN, Finding
from mumian_agent.domain.config import AgentConfig
from mumian_agent.main.doctor import coordinators
from mumian_agent.runtime.certificates import Certificates

from tests.orchestrator.scripted_agent import timestamp
from tests.security.secured import ROOT, secured
from tests.security.test_joining_agent import config_of, joined


async def looked(config: AgentConfig, agent_runs: bool = False) -> dict[str, Finding]:
    return {each.check: each async for each in coordinators.look(config, agent_runs)}


async def test_a_site_that_has_joined_would_be_taken_and_is_not_connected_by_asking(tmp_path: Path) -> None:
    async with secured(tmp_path) as platform:
        config = await joined(platform, tmp_path)
        found = await looked(config)
        [certificate] = coordinators.certificates(config)
        assert not platform.services.sessions.count()
    assert found["coordinator"].state == found["clock"].state == certificate.state == FINDING_STATE_OK
    assert "it would be taken" in found["coordinator"].message
    assert "good until" in certificate.message


async def test_a_revoked_site_and_one_of_another_operator_are_told_why_they_are_refused(
    tmp_path: Path,
) -> None:
    async with secured(tmp_path) as platform:
        config = await joined(platform, tmp_path)
        config.site.operator_id = "somebody-else"
        other = (await looked(config))["coordinator"]
        await platform.services.access.sites.revoke(ROOT, "gz")
        revoked = (await looked(config))["coordinator"]
    assert other.state == revoked.state == FINDING_STATE_FAIL
    assert "write that in site.operator_id" in other.message
    assert "was revoked" in revoked.message
    assert "mumian-agent join" in revoked.advice


async def test_a_clock_that_is_off_is_found_before_and_after_it_is_too_far(tmp_path: Path) -> None:
    async with secured(tmp_path) as platform:
        config = await joined(platform, tmp_path)
        platform.clock.ahead_s = 30
        warned = await looked(config)
        platform.clock.ahead_s = 90
        refused = await looked(config)
    assert warned["clock"].state == FINDING_STATE_WARN
    assert "30 s behind" in warned["clock"].message
    assert refused["coordinator"].state == FINDING_STATE_FAIL
    assert "set both clocks by NTP" in refused["coordinator"].advice


async def test_another_agent_with_the_same_site_is_found(tmp_path: Path) -> None:
    async with secured(tmp_path) as platform:
        config = await joined(platform, tmp_path)
        proof = Certificates(config.state_dir).proof()
        assert proof is not None
        credentials = grpc.ssl_channel_credentials(proof.authority, proof.key, proof.certificate)
        async with grpc.aio.secure_channel(platform.agents, credentials) as channel:
            call = AgentServiceStub(channel).Connect()
            hello = Hello(site=config.site, agent_time=timestamp())
            await call.write(AgentReport(agent_epoch=1, sequence=1, hello=hello))
            await asyncio.wait_for(call.read(), 10)
            alone = (await looked(config))["coordinator"]
            beside_ours = (await looked(config, agent_runs=True))["coordinator"]
            call.cancel()
    assert alone.state == FINDING_STATE_FAIL
    assert "another agent speaks for site gz" in alone.message
    assert beside_ours.state == FINDING_STATE_OK


async def test_a_site_that_has_not_joined_and_a_key_that_others_can_read_are_found(tmp_path: Path) -> None:
    [far] = coordinators.certificates(config_of(tmp_path, "192.0.2.1:7070"))
    assert far.state == FINDING_STATE_FAIL
    assert "has not joined" in far.message
    async with secured(tmp_path) as platform:
        config = await joined(platform, tmp_path)
    key = Certificates(config.state_dir).folder / "key.pem"
    key.chmod(0o644)
    good, readable = coordinators.certificates(config)
    assert good.state == FINDING_STATE_OK
    assert readable.state == FINDING_STATE_WARN
    assert "chmod 600" in readable.advice
