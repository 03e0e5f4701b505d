"""Two real coordinators with TLS on a real etcd: who one is survives forwarding, and cannot be forged."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import mumian
import pytest
from mumian.agent.v1 import enrolment_service_pb2 as enrolment
from mumian.agent.v1.agent_pb2 import AgentReport, Hello
from mumian.agent.v1.agent_service_pb2_grpc import AgentServiceStub
from mumian.agent.v1.enrolment_service_pb2_grpc import EnrolmentServiceStub
from mumian.api.v1 import job_pb2
from mumian.api.v1.fleet_pb2 import Site
from mumian.errors import MumianError
from mumian_orchestrator.main.free_ports import free_port

from tests.orchestrator.conftest import Coordinator
from tests.orchestrator.conftest import etcd_endpoint as etcd_endpoint
from tests.orchestrator.scripted_agent import ScriptedAgent
from tests.orchestrator.tenant import spec_of
from tests.processes import SCRIPTS
from tests.security.secured import SiteKey

pytestmark = pytest.mark.etcd

ACME = ("token", "create", "--role", "tenant-user", "--tenant", "acme")


class Pair:
    """A leader and a follower that share an authority."""

    def __init__(self, folder: Path, etcd: str) -> None:
        self._state = folder / "state"
        self.coordinators, self.agents_doors = [], []
        for name in ("first", "second"):
            (folder / name).mkdir()
            self.agents_doors.append(f"127.0.0.1:{free_port()}")
            self.coordinators.append(
                Coordinator(
                    folder / name,
                    etcd,
                    key_prefix=f"/{folder.name}/",
                    lease_ttl_s=2,
                    state_dir=str(self._state),
                    listen_agents=self.agents_doors[-1],
                )
            )
        self.leader, self.follower = self.coordinators
        self.ca_file = self._state / "authority.pem"

    def command(self, *arguments: str) -> str:
        """What one of the follower's commands prints."""
        argv = [str(SCRIPTS / "mumian-coordinator"), "--config", str(self.follower.config), *arguments]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def client(self, coordinator: Coordinator, token: str) -> mumian.AsyncClient:
        return mumian.AsyncClient(coordinator.address, token=token, ca_file=self.ca_file, timeout_s=60)

    async def join(self, key: SiteKey, token: str) -> None:
        """By the follower's door for people."""
        credentials = grpc.ssl_channel_credentials(self.ca_file.read_bytes())
        async with grpc.aio.secure_channel(self.follower.address, credentials) as channel:
            request = enrolment.JoinRequest(token=token, certificate_request=key.request)
            key.certificate = (await EnrolmentServiceStub(channel).Join(request)).certificate.certificate

    def agent_channel(self, key: SiteKey, door: str) -> grpc.aio.Channel:
        credentials = grpc.ssl_channel_credentials(self.ca_file.read_bytes(), key.pem, key.certificate)
        return grpc.aio.secure_channel(door, credentials)


@pytest.fixture
def pair(tmp_path: Path, etcd_endpoint: str) -> Iterator[Pair]:
    """A leader and a follower with TLS."""
    made = Pair(tmp_path, etcd_endpoint)
    yield made
    for coordinator in made.coordinators:
        coordinator.running.sweep()


async def test_people_and_agents_are_who_they_are_at_the_followers_doors_too(pair: Pair) -> None:
    acme = await asyncio.to_thread(pair.command, *ACME)
    site_token = await asyncio.to_thread(pair.command, "site-token", "create", "gz", "--operator", "op")
    key = SiteKey()
    await pair.join(key, site_token)
    follower_door = pair.agents_doors[1]
    async with pair.agent_channel(key, follower_door) as channel, pair.client(pair.follower, acme) as client:
        agent = ScriptedAgent(channel)
        await agent.connect()
        assert agent.error is None
        job = await client.submit(spec_of())
        run = await agent.run_of(job.id)
        agent.status(run.allocation.id, job_pb2.ALLOCATION_STATE_SUCCEEDED, exit_code=0)
        assert (await client.wait(job.id, timeout_s=60)).tenant_id == "acme"

        # An agent that sends what only coordinators send is who its certificate says, and nobody else.
        forged = (("mumian-forwarded-certificate-bin", b"x"), ("mumian-forwarded-peer", "ipv4:9.9.9.9:9"))
        other = AgentServiceStub(channel).Connect(metadata=forged)
        await other.write(agent_hello("sz"))
        with pytest.raises(grpc.aio.AioRpcError, match="the certificate is of site gz"):
            await other.read()
        with pytest.raises(MumianError) as refused:
            async with pair.client(pair.follower, acme[:-1] + ("0" if acme[-1] != "0" else "1")) as wrong:
                await wrong.get(job.id)
        assert refused.value.reason == "UNAUTHENTICATED"

        await asyncio.to_thread(pair.command, "site", "revoke", "gz")
        async with asyncio.timeout(5):
            await asyncio.wait(agent._tasks[:1])
    log = await asyncio.to_thread(pair.command, "audit", "verify")
    assert "none changed, removed or moved" in log


def agent_hello(site_id: str) -> AgentReport:
    return AgentReport(agent_epoch=1, sequence=1, hello=Hello(site=Site(id=site_id, operator_id="op")))


async def test_the_next_leader_knows_the_tokens_the_sites_and_the_log(pair: Pair) -> None:
    acme = await asyncio.to_thread(pair.command, *ACME)
    revoked = await asyncio.to_thread(pair.command, "token", "create", "--role", "auditor")
    await asyncio.to_thread(pair.command, "token", "revoke", revoked.split("_")[1])
    site_token = await asyncio.to_thread(pair.command, "site-token", "create", "gz", "--operator", "op")
    key = SiteKey()
    await pair.join(key, site_token)
    async with pair.client(pair.follower, acme) as client:
        job = await client.submit(spec_of(), request_id="once")
        pair.leader.running.kill()
        assert (await client.submit(spec_of(), request_id="once")).id == job.id
        async with pair.client(pair.follower, revoked) as out:
            with pytest.raises(MumianError) as refused:
                await out.diagnose()
        assert refused.value.reason == "UNAUTHENTICATED"
        async with pair.agent_channel(key, pair.agents_doors[1]) as channel:
            agent = ScriptedAgent(channel)
            await agent.connect()
            assert agent.error is None
            await agent.disconnect()
    exported = pair.ca_file.parent / "audit.log"
    await asyncio.to_thread(pair.command, "audit", "export", str(exported))
    assert b"JobService/CreateJob" in exported.read_bytes()
    assert await asyncio.to_thread(pair.command, "audit", "verify", str(exported))
