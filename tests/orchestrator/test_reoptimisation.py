"""Services that move to where they cost less, as their tenants and their sites see it."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from mumian.api.v1 import job_pb2

from tests.orchestrator.conftest import Coordinator
from tests.orchestrator.planning import MOVE_MICROCNY, RUNNING, SERVICE, optimize, running, site
from tests.orchestrator.scripted_agent import ScriptedAgent
from tests.orchestrator.tenant import Tenant, spec_of

pytestmark = pytest.mark.etcd

FAILED, CANCELLED = job_pb2.ALLOCATION_STATE_FAILED, job_pb2.ALLOCATION_STATE_CANCELLED


def stops_of(agent: ScriptedAgent) -> list[str]:
    """The allocations that the agent was told to stop."""
    return [c.stop.allocation_id for c in agent.commands if c.HasField("stop")]


async def test_a_service_starts_at_its_new_place_before_it_stops_at_the_old_one(
    channel: grpc.aio.Channel, tenant: Tenant
) -> None:
    dear = await site(channel, "dear")
    job = await running(tenant, dear, spec_of(kind=SERVICE))
    old = job.allocations[0].id
    cheap = await site(channel, "cheap")
    shown = await optimize(channel, dry_run=True)
    assert [(m.allocation_id, m.to_node_id, m.saves_microcny_per_hour) for m in shown.moves] == [
        (old, "cheap/n1", 800_000 - MOVE_MICROCNY)
    ]
    costs = (shown.as_it_runs.cost_microcny_per_hour, shown.found.cost_microcny_per_hour)
    assert costs == (900_000, 100_000 + MOVE_MICROCNY)
    assert shown.found.proof.bound_microcny_per_hour <= costs[1]
    assert not [c for c in cheap.commands if c.HasField("run")], "it was only to be shown"

    assert (await optimize(channel)).moves == shown.moves
    new = (await cheap.run_of(job.id)).allocation
    assert (new.id, new.takes_over_from) == (f"{old}.1", old)
    assert not stops_of(dear), "the new one does not run yet"
    assert (await tenant.get(job.id)).state == job_pb2.JOB_STATE_RUNNING
    assert not (await optimize(channel)).moves, "what moves already is left alone"
    cheap.status(new.id, RUNNING)
    await dear.until(lambda: stops_of(dear) == [old])
    dear.status(old, CANCELLED)
    done = await tenant.watch(job.id, lambda seen: seen.allocations[0].state == CANCELLED)
    assert done.state == job_pb2.JOB_STATE_RUNNING
    assert done.allocations[0].state_message == f"moved: {new.id} on cheap/n1 has taken over"
    assert (await optimize(channel)).as_it_runs.cost_microcny_per_hour == 100_000


async def test_a_service_goes_on_where_it_is_when_its_new_place_fails(
    channel: grpc.aio.Channel, tenant: Tenant
) -> None:
    dear = await site(channel, "dear")
    job = await running(tenant, dear, spec_of(kind=SERVICE))
    cheap = await site(channel, "cheap")
    await optimize(channel)
    new = (await cheap.run_of(job.id)).allocation
    cheap.status(new.id, FAILED, exit_code=1)
    after = await tenant.watch(job.id, lambda seen: seen.allocations[-1].state == FAILED)
    assert after.state == job_pb2.JOB_STATE_RUNNING
    assert not stops_of(dear)
    await tenant.cancel(job.id)
    dear.status(job.allocations[0].id, CANCELLED)
    await tenant.until(job.id, job_pb2.JOB_STATE_CANCELLED)


async def test_pinned_services_and_batch_work_stay_where_they_are(
    channel: grpc.aio.Channel, tenant: Tenant
) -> None:
    dear = await site(channel, "dear")
    await running(tenant, dear, spec_of("pinned", kind=SERVICE, pinned=True))
    await running(tenant, dear, spec_of("batch"))
    await site(channel, "cheap")
    answer = await optimize(channel)
    assert not answer.moves
    assert answer.found.cost_microcny_per_hour == answer.as_it_runs.cost_microcny_per_hour == 2 * 900_000


async def test_two_services_that_could_only_swap_are_held_back(
    channel: grpc.aio.Channel, tenant: Tenant
) -> None:
    cheap = await site(channel, "cheap")
    cheap.links(50_000)
    near = spec_of("near", cpu_milli=4000, kind=SERVICE)
    slo = near.task_groups[0].latency_slo
    slo.zone_ids.append("tianhe")
    slo.budget_us, slo.soft_microcny_per_ms_hour = 10_000, 1_000_000
    await running(tenant, cheap, near)
    dear = await site(channel, "dear")
    dear.links(1000)
    await running(tenant, dear, spec_of("any", cpu_milli=3000, kind=SERVICE))
    answer = await optimize(channel)
    assert answer.found.cost_microcny_per_hour < answer.as_it_runs.cost_microcny_per_hour
    assert {move.held_back for move in answer.moves} == {
        "there is no room for it beside what runs: something would have to stop first"
    }
    assert len(answer.moves) == 2


async def test_a_new_leader_carries_a_move_on(coordinator: Coordinator, channel: grpc.aio.Channel) -> None:
    tenant = Tenant(channel)
    dear = await site(channel, "dear")
    job = await running(tenant, dear, spec_of(kind=SERVICE))
    old = job.allocations[0].id
    cheap = await site(channel, "cheap")
    await optimize(channel)
    new = (await cheap.run_of(job.id)).allocation.id
    coordinator.running.kill()
    await dear.disconnect()
    await cheap.disconnect()
    coordinator.start()
    async with coordinator.channel() as again:
        dear, cheap = ScriptedAgent(again, "dear"), ScriptedAgent(again, "cheap")
        await dear.connect(running=(dear.status_of(old, RUNNING),))
        welcome = dear.welcome()
        assert welcome is not None
        assert [run.allocation.id for run in welcome.allocations] == [old], "it is to run on for now"
        await cheap.connect(running=(cheap.status_of(new, RUNNING),))
        await dear.until(lambda: stops_of(dear) == [old])
        dear.status(old, CANCELLED)
        done = await Tenant(again).watch(job.id, lambda seen: seen.allocations[0].state == CANCELLED)
        assert done.state == job_pb2.JOB_STATE_RUNNING
        await dear.disconnect()
        await cheap.disconnect()


async def test_the_platform_optimizes_by_itself_when_it_is_told_how_often(
    tmp_path: Path, etcd_endpoint: str
) -> None:
    coordinator = Coordinator(tmp_path, etcd_endpoint, reoptimize_interval_s=1, reoptimize_time_limit_ms=100)
    try:
        async with coordinator.channel() as channel:
            dear = await site(channel, "dear")
            job = await running(Tenant(channel), dear, spec_of(kind=SERVICE))
            cheap = await site(channel, "cheap")
            assert (await cheap.run_of(job.id)).allocation.takes_over_from == job.allocations[0].id
            await dear.disconnect()
            await cheap.disconnect()
    finally:
        coordinator.running.sweep()
