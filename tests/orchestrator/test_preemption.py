"""Jobs that make room for others of higher priority, as their tenants and their site see it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from mumian.api.v1 import job_pb2

from tests.orchestrator.conftest import Coordinator
from tests.orchestrator.scripted_agent import ScriptedAgent
from tests.orchestrator.tenant import Tenant, spec_of

pytestmark = pytest.mark.etcd

RUNNING, SUCCEEDED, CANCELLED = (
    job_pb2.ALLOCATION_STATE_RUNNING,
    job_pb2.ALLOCATION_STATE_SUCCEEDED,
    job_pb2.ALLOCATION_STATE_CANCELLED,
)
SERVICE, GANG = job_pb2.JOB_KIND_SERVICE, job_pb2.JOB_KIND_GANG


@pytest.fixture
def coordinator(tmp_path: Path, etcd_endpoint: str) -> Iterator[Coordinator]:
    """A coordinator whose policy lets jobs evict others."""
    started = Coordinator(tmp_path, etcd_endpoint, preempt=True)
    yield started
    started.running.sweep()


def runs_of(agent: ScriptedAgent, job_id: str) -> list[str]:
    """The allocations of a job that the agent was told to run."""
    runs = [c.run.allocation for c in agent.commands if c.HasField("run")]
    return [allocation.id for allocation in runs if allocation.job_id == job_id]


async def until_stopped(agent: ScriptedAgent, allocation_id: str) -> None:
    """Wait for the command that ends an allocation."""
    await agent.until(lambda: [c for c in agent.commands if c.stop.allocation_id == allocation_id])


async def running(tenant: Tenant, agent: ScriptedAgent, spec: job_pb2.JobSpec) -> job_pb2.Job:
    """A job all of whose tasks run."""
    job = await tenant.create(spec)
    count = sum(group.count for group in spec.task_groups)
    await agent.until(lambda: len(runs_of(agent, job.id)) == count)
    for allocation_id in runs_of(agent, job.id):
        agent.status(allocation_id, RUNNING)
    return await tenant.until(job.id, job_pb2.JOB_STATE_RUNNING)


async def test_a_service_makes_room_and_comes_back_when_there_is_room_again(
    tenant: Tenant, agent: ScriptedAgent
) -> None:
    low = await running(tenant, agent, spec_of("low", cpu_milli=4000, kind=SERVICE, priority=10))
    high = await tenant.create(spec_of("high", cpu_milli=3000, priority=90))
    await until_stopped(agent, f"{low.id}.main.0")
    waiting = await tenant.watch(high.id, lambda job: bool(job.explanations))
    assert waiting.state_message == "waits for 1 allocation of lower priority to stop"
    # What is freed is kept for it: another job that would fit does not get in between.
    other = await tenant.create(spec_of("other", cpu_milli=2000, priority=50))
    await tenant.watch(other.id, lambda job: bool(job.explanations))
    assert not runs_of(agent, high.id), "it starts only when its victim has ended"
    agent.status(f"{low.id}.main.0", CANCELLED)
    assert (await agent.run_of(high.id)).allocation.node_id == "gz/n1"
    evicted = await tenant.watch(low.id, lambda job: job.state == job_pb2.JOB_STATE_PENDING)
    assert evicted.allocations[0].evicted
    assert evicted.allocations[0].state_message == f"evicted: its place goes to job {high.id} of priority 90"
    assert not runs_of(agent, other.id)
    agent.status(f"{high.id}.main.0", SUCCEEDED, exit_code=0)
    await tenant.until(high.id, job_pb2.JOB_STATE_SUCCEEDED)
    agent.status((await agent.run_of(other.id)).allocation.id, SUCCEEDED, exit_code=0)
    again = f"{low.id}.main.0.1"
    await agent.until(lambda: again in runs_of(agent, low.id))
    agent.status(again, RUNNING)
    back = await tenant.until(low.id, job_pb2.JOB_STATE_RUNNING)
    assert [(a.id, a.state) for a in back.allocations] == [
        (f"{low.id}.main.0", CANCELLED),
        (again, RUNNING),
    ]


async def test_an_equal_priority_evicts_nothing_and_another_tenants_job_is_not_named(
    channel: grpc.aio.Channel, tenant: Tenant, agent: ScriptedAgent
) -> None:
    low = await running(tenant, agent, spec_of("low", cpu_milli=4000, priority=50))
    stranger = Tenant(channel, "stranger")
    equal = await stranger.create(spec_of("equal", cpu_milli=4000, priority=50))
    await stranger.watch(equal.id, lambda job: bool(job.explanations))
    assert not (await tenant.get(low.id)).allocations[0].stop_requested
    await stranger.create(spec_of("high", cpu_milli=4000, priority=51))
    await until_stopped(agent, f"{low.id}.main.0")
    told = await tenant.watch(low.id, lambda job: job.allocations[0].evicted)
    expected = "evicted: its place goes to another tenant's job of priority 51"
    assert told.allocations[0].state_message == expected


async def test_a_gang_makes_room_as_a_whole_and_comes_back_as_a_whole(
    tenant: Tenant, agent: ScriptedAgent
) -> None:
    gang = await running(tenant, agent, spec_of("gang", count=2, cpu_milli=2000, kind=GANG, priority=10))
    high = await tenant.create(spec_of("high", cpu_milli=1000, priority=90))
    for index in range(2):
        await until_stopped(agent, f"{gang.id}.main.{index}")
    agent.status(f"{gang.id}.main.0", CANCELLED)
    await tenant.watch(gang.id, lambda job: job.allocations[0].state == CANCELLED)
    assert not runs_of(agent, high.id), "it waits for all of the gang"
    agent.status(f"{gang.id}.main.1", CANCELLED)
    await agent.run_of(high.id)
    assert len(runs_of(agent, gang.id)) == 2
    agent.status(f"{high.id}.main.0", SUCCEEDED, exit_code=0)
    await agent.until(lambda: len(runs_of(agent, gang.id)) == 4)


async def test_a_cancelled_preemptor_keeps_nothing(tenant: Tenant, agent: ScriptedAgent) -> None:
    low = await running(tenant, agent, spec_of("low", cpu_milli=4000, priority=10))
    high = await tenant.create(spec_of("high", cpu_milli=4000, priority=90))
    await until_stopped(agent, f"{low.id}.main.0")
    assert (await tenant.cancel(high.id)).state == job_pb2.JOB_STATE_CANCELLED
    agent.status(f"{low.id}.main.0", CANCELLED)
    await agent.until(lambda: f"{low.id}.main.0.1" in runs_of(agent, low.id))


async def test_a_failover_between_eviction_and_end_loses_neither_job(
    coordinator: Coordinator, tenant: Tenant, agent: ScriptedAgent
) -> None:
    low = await running(tenant, agent, spec_of("low", cpu_milli=4000, kind=SERVICE, priority=10))
    high = await tenant.create(spec_of("high", cpu_milli=4000, priority=90))
    victim = f"{low.id}.main.0"
    await until_stopped(agent, victim)
    coordinator.running.kill()
    await agent.disconnect()
    coordinator.start()
    async with coordinator.channel() as channel:
        tenant = Tenant(channel)
        agent = ScriptedAgent(channel, epoch=1)
        await agent.connect(running=(agent.status_of(victim, RUNNING),))
        welcome = agent.welcome()
        assert welcome is not None
        assert not welcome.allocations, "the victim is not to run on"
        assert not runs_of(agent, high.id)
        agent.status(victim, CANCELLED)
        agent.status((await agent.run_of(high.id)).allocation.id, SUCCEEDED, exit_code=0)
        await tenant.until(high.id, job_pb2.JOB_STATE_SUCCEEDED)
        await agent.until(lambda: f"{victim}.1" in runs_of(agent, low.id))
        await agent.disconnect()


async def test_a_new_leader_keeps_the_place_that_was_reserved(
    coordinator: Coordinator, tenant: Tenant, agent: ScriptedAgent
) -> None:
    """Without that, a job that fits beside the victim would take a part of it for good."""
    low = await running(tenant, agent, spec_of("low", cpu_milli=3000, kind=SERVICE, priority=10))
    high = await tenant.create(spec_of("high", cpu_milli=4000, priority=90))
    victim = f"{low.id}.main.0"
    await until_stopped(agent, victim)
    coordinator.running.kill()
    await agent.disconnect()
    coordinator.start()
    async with coordinator.channel() as channel:
        tenant = Tenant(channel)
        agent = ScriptedAgent(channel, epoch=1)
        await agent.connect(running=(agent.status_of(victim, RUNNING),))
        other = await tenant.create(spec_of("other", cpu_milli=1000, kind=SERVICE))
        waiting = await tenant.watch(other.id, lambda job: bool(job.explanations))
        assert waiting.state == job_pb2.JOB_STATE_PENDING, waiting.explanations[0].summary
        agent.status(victim, CANCELLED)
        agent.status((await agent.run_of(high.id)).allocation.id, SUCCEEDED, exit_code=0)
        await tenant.until(high.id, job_pb2.JOB_STATE_SUCCEEDED)
        await agent.run_of(other.id)
        await agent.disconnect()
