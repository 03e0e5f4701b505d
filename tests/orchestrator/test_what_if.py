"""Questions about changes of the fleet: the answers, and that nothing happens."""

from __future__ import annotations

import grpc
import pytest
from mumian.api.v1 import job_pb2
from mumian.api.v1.explanation_pb2 import FILTER_LATENCY_SLO
from mumian.api.v1.planning_pb2 import (
    AddNodes,
    AddSite,
    FleetChange,
    SetLink,
    SetPrice,
    SetPue,
    SetSlo,
)

from tests.orchestrator.planning import MOVE_MICROCNY, SERVICE, optimize, running, site, what_if
from tests.orchestrator.tenant import Tenant, spec_of

pytestmark = pytest.mark.etcd


async def test_a_drained_and_a_lost_site_leave_their_work_to_others_as_far_as_there_is_room(
    channel: grpc.aio.Channel, tenant: Tenant
) -> None:
    cheap = await site(channel, "cheap")
    batch = await running(tenant, cheap, spec_of("batch", cpu_milli=2000))
    service = await running(tenant, cheap, spec_of("service", cpu_milli=1000, kind=SERVICE, priority=90))
    await site(channel, "dear", cpu_milli=2000)
    before = await optimize(channel, dry_run=True)
    for change in (FleetChange(drain_site_id="cheap"), FleetChange(lose_site_id="cheap")):
        answer = await what_if(channel, change)
        assert answer.as_it_runs == before.as_it_runs
        assert (answer.left_alone.placed_task_count, answer.left_alone.unplaced_task_count) == (0, 2)
        assert (answer.best_after.placed_task_count, answer.best_after.unplaced_task_count) == (1, 1)
        assert {task.job_id: task.to_node_id for task in answer.affected} == {
            batch.id: "",
            service.id: "dear/n1",
        }
        assert answer.best_after.cost_microcny_per_hour == 900_000
        assert [share.site_id for share in answer.best_after.sites] == ["dear"]
    assert (await optimize(channel, dry_run=True)).as_it_runs == before.as_it_runs


async def test_more_nodes_take_what_waits_and_make_a_full_site_worth_less(
    channel: grpc.aio.Channel, tenant: Tenant
) -> None:
    cheap = await site(channel, "cheap", cpu_milli=1000)
    await running(tenant, cheap, spec_of("first", kind=SERVICE))
    waits = await tenant.create(spec_of("second"))
    await tenant.watch(waits.id, lambda job: bool(job.explanations))
    answer = await what_if(channel, FleetChange(add_nodes=AddNodes(like_node_id="cheap/n1", count=2)))
    assert answer.best_before.unplaced_task_count == answer.left_alone.unplaced_task_count == 1
    assert answer.best_after.unplaced_task_count == 0
    assert not answer.affected
    saves = {price.resource: price.saves_microcny_per_hour for price in answer.best_before.proof.prices}
    assert saves["cpu"] > 0, "one more core would take the task that waits"
    assert not answer.best_after.proof.prices
    assert (await tenant.get(waits.id)).state == job_pb2.JOB_STATE_PENDING


async def test_prices_and_pue_change_what_it_costs_and_what_had_better_move(
    channel: grpc.aio.Channel, tenant: Tenant
) -> None:
    cheap = await site(channel, "cheap")
    await running(tenant, cheap, spec_of("batch"))
    await running(tenant, cheap, spec_of("service", kind=SERVICE))
    await site(channel, "dear")
    dearer = FleetChange(set_price=SetPrice(site_id="cheap", what="cpu", microcny=1_000_000))
    answer = await what_if(
        channel, dearer, FleetChange(set_pue=SetPue(site_id="cheap", average_permille=1100))
    )
    assert answer.best_before.moved_task_count == 0
    assert answer.left_alone.cost_microcny_per_hour == 2_000_000
    assert answer.best_after.moved_task_count == 1, "only the service may move"
    assert answer.best_after.cost_microcny_per_hour == 1_900_000 + MOVE_MICROCNY
    assert answer.best_after.proof.bound_microcny_per_hour <= 1_900_000 + MOVE_MICROCNY


async def test_a_slower_link_breaks_the_promise_of_what_runs_behind_it(
    channel: grpc.aio.Channel, tenant: Tenant
) -> None:
    cheap, dear = await site(channel, "cheap"), await site(channel, "dear")
    for agent in (cheap, dear):
        agent.links(2000)
    spec = spec_of("vr", kind=SERVICE)
    spec.task_groups[0].latency_slo.zone_ids.append("tianhe")
    spec.task_groups[0].latency_slo.budget_us = 10_000
    job = await running(tenant, cheap, spec)
    slower = FleetChange(set_link=SetLink(from_id="tianhe", to_site_id="cheap", rtt_p99_us=12_000))
    answer = await what_if(channel, slower)
    assert (answer.as_it_runs.broken_promise_count, answer.left_alone.broken_promise_count) == (0, 1)
    assert answer.best_after.broken_promise_count == 0
    (task,) = answer.affected
    assert (task.job_id, task.broken.filter, task.to_node_id) == (job.id, FILTER_LATENCY_SLO, "dear/n1")
    assert "12 ms > 10 ms" in task.broken.reason


async def test_a_new_site_takes_what_waits_as_the_one_that_it_is_like_would(
    channel: grpc.aio.Channel, tenant: Tenant
) -> None:
    cheap = await site(channel, "cheap", cpu_milli=1000)
    cheap.links(2000)
    spec = spec_of("first", kind=SERVICE)
    spec.task_groups[0].latency_slo.zone_ids.append("tianhe")
    spec.task_groups[0].latency_slo.budget_us = 10_000
    await running(tenant, cheap, spec)
    spec.name = "second"
    waits = await tenant.create(spec)
    await tenant.watch(waits.id, lambda job: bool(job.explanations))
    added = FleetChange(add_site=AddSite(like_site_id="cheap", site_id="west"))
    answer = await what_if(channel, added)
    assert (answer.best_before.unplaced_task_count, answer.best_after.unplaced_task_count) == (1, 0)
    assert {share.site_id: share.task_count for share in answer.best_after.sites} == {"cheap": 1, "west": 1}
    far = FleetChange(set_link=SetLink(from_id="tianhe", to_site_id="west", rtt_p99_us=12_000))
    assert (await what_if(channel, added, far)).best_after.unplaced_task_count == 1
    more = FleetChange(add_nodes=AddNodes(like_node_id="cheap/n1+1", count=1))
    (share,) = (await what_if(channel, added, FleetChange(lose_site_id="cheap"), more)).best_after.sites
    assert (share.site_id, share.task_count) == ("west", 2)
    with pytest.raises(grpc.aio.AioRpcError, match="known: cheap"):
        await what_if(channel, FleetChange(lose_site_id="west"))


async def test_a_tighter_promise_shows_who_breaks_it_and_where_it_would_hold(
    channel: grpc.aio.Channel, tenant: Tenant
) -> None:
    cheap, dear = await site(channel, "cheap"), await site(channel, "dear")
    cheap.links(8000)
    dear.links(2000)
    spec = spec_of("vr", kind=SERVICE)
    spec.task_groups[0].latency_slo.zone_ids.append("tianhe")
    spec.task_groups[0].latency_slo.budget_us = 10_000
    job = await running(tenant, cheap, spec)
    answer = await what_if(channel, FleetChange(set_slo=SetSlo(job_id=job.id, budget_us=5000)))
    assert (answer.as_it_runs.broken_promise_count, answer.left_alone.broken_promise_count) == (0, 1)
    assert (answer.best_after.broken_promise_count, answer.best_after.cost_microcny_per_hour) == (
        0,
        900_000 + MOVE_MICROCNY,
    )
    (task,) = answer.affected
    assert (task.job_id, task.to_node_id) == (job.id, "dear/n1")
    assert "8 ms > 5 ms" in task.broken.reason
    assert (await tenant.get(job.id)).spec.task_groups[0].latency_slo.budget_us == 10_000


async def test_a_promise_changes_only_where_there_is_one(channel: grpc.aio.Channel, tenant: Tenant) -> None:
    job = await running(tenant, await site(channel, "cheap"), spec_of("batch"))
    with pytest.raises(grpc.aio.AioRpcError, match="has no latency promise that could change"):
        await what_if(channel, FleetChange(set_slo=SetSlo(job_id=job.id, budget_us=5000)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (FleetChange(), "changes[0] is empty; set one of its fields"),
        (FleetChange(drain_site_id="moon"), "site (moon) of changes[0] does not exist; known: cheap"),
        (FleetChange(add_nodes=AddNodes(like_node_id="cheap/n9", count=1)), "(cheap/n9) is no node"),
        (FleetChange(add_nodes=AddNodes(like_node_id="cheap/n1")), "add_nodes.count (0) must be from 1 to"),
        (FleetChange(set_pue=SetPue(site_id="cheap", average_permille=900)), "(900) must be from 1000 to"),
        (
            FleetChange(set_price=SetPrice(site_id="cheap", what="H100")),
            "set_price.what ('H100') has no price at cheap; use cpu, memory, energy, egress",
        ),
        (
            FleetChange(set_link=SetLink(from_id="tianhe", to_site_id="cheap")),
            "set_link.rtt_p99_us is missing: nobody has measured this link yet",
        ),
        (
            FleetChange(add_site=AddSite(like_site_id="moon", site_id="west")),
            "site (moon) of changes[0] does not exist; known: cheap",
        ),
        (
            FleetChange(add_site=AddSite(like_site_id="cheap", site_id="cheap")),
            "add_site.site_id (cheap) is there already; name the new site otherwise",
        ),
        (FleetChange(add_site=AddSite(like_site_id="cheap")), "add_site.site_id () is empty"),
        (FleetChange(set_slo=SetSlo(job_id="vr-1", budget_us=1)), "(vr-1) is no job that runs or waits"),
    ],
)
async def test_a_change_that_makes_no_sense_is_refused(
    channel: grpc.aio.Channel, change: FleetChange, said: str
) -> None:
    await site(channel, "cheap")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await what_if(channel, change)
    assert said in (refused.value.details() or "")
