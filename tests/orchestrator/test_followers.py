"""Several coordinators on one etcd: one leads, the others answer by asking it, and take over."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import mumian
import pytest
from mumian.api.v1 import job_pb2
from mumian.errors import MumianError

from tests.orchestrator.conftest import Coordinator
from tests.orchestrator.scripted_agent import ScriptedAgent
from tests.orchestrator.tenant import Tenant, spec_of

pytestmark = pytest.mark.etcd


@pytest.fixture
def pair(tmp_path: Path, etcd_endpoint: str) -> Iterator[tuple[Coordinator, Coordinator]]:
    """A leader and a follower."""
    prefix = f"/{tmp_path.name}/"
    started = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        started.append(Coordinator(folder, etcd_endpoint, key_prefix=prefix, lease_ttl_s=2))
    yield started[0], started[1]
    for coordinator in started:
        coordinator.running.sweep()


async def test_a_follower_answers_tenants_and_agents_by_asking_the_leader(
    pair: tuple[Coordinator, Coordinator],
) -> None:
    leader, follower = pair
    async with leader.channel() as to_leader, follower.channel() as to_follower:
        agent = ScriptedAgent(to_follower)
        await agent.connect()
        tenant = Tenant(to_follower)
        job = await tenant.create(spec_of(), request_id="once")
        assert (await Tenant(to_leader).create(spec_of(), request_id="once")).id == job.id
        run = await agent.run_of(job.id)
        agent.status(run.allocation.id, job_pb2.ALLOCATION_STATE_SUCCEEDED, exit_code=0)
        await tenant.until(job.id, job_pb2.JOB_STATE_SUCCEEDED)
        await agent.disconnect()
    with mumian.Client(follower.address) as client, pytest.raises(MumianError) as refused:
        client.get("nobody")
    assert refused.value.reason == "JOB_NOT_FOUND"


async def test_when_the_leader_is_killed_the_follower_has_its_jobs_and_the_same_request_makes_no_second(
    pair: tuple[Coordinator, Coordinator],
) -> None:
    leader, follower = pair
    async with mumian.AsyncClient(f"{leader.address},{follower.address}", timeout_s=60) as client:
        job = await client.submit(spec_of(), request_id="once")
        leader.running.kill()
        again = await client.submit(spec_of(), request_id="once")
        assert again.id == job.id
        assert [found.id async for found in client.list()] == [job.id]
        # The one that was killed comes back behind the new leader.
        await asyncio.to_thread(leader.start)
        async with leader.channel() as channel:
            assert (await Tenant(channel, "default").get(job.id)).id == job.id


async def test_a_leader_that_was_stopped_past_its_lease_writes_nothing_more(
    pair: tuple[Coordinator, Coordinator],
) -> None:
    leader, follower = pair
    async with mumian.AsyncClient(follower.address, timeout_s=60) as client:
        before = await client.submit(spec_of(), request_id="before")
        os.kill(leader.running.process.pid, signal.SIGSTOP)
        # Until the lease ends the follower asks the one that sleeps; then it leads itself.
        after = await client.submit(spec_of(), request_id="after")
        os.kill(leader.running.process.pid, signal.SIGCONT)
        async with mumian.AsyncClient(leader.address, timeout_s=60) as to_the_old:
            assert (await to_the_old.submit(spec_of(), request_id="after")).id == after.id
        assert {job.id async for job in client.list()} == {before.id, after.id}


async def test_a_leader_that_is_asked_to_stop_hands_over_at_once(
    pair: tuple[Coordinator, Coordinator],
) -> None:
    leader, follower = pair
    async with mumian.AsyncClient(follower.address, timeout_s=60) as client:
        job = await client.submit(spec_of(), request_id="once")
        assert await asyncio.to_thread(leader.running.stop) == 0
        assert (await client.submit(spec_of(), request_id="once")).id == job.id
