"""Sites of several nodes: one that leaves takes its tasks with it, and they are placed again."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest
from mumian.agent.v1 import agent_pb2 as pb
from mumian.api.v1 import fleet_pb2, job_pb2
from mumian.api.v1.fleet_service_pb2 import ListNodesRequest, ListSitesRequest
from mumian.api.v1.fleet_service_pb2_grpc import FleetServiceStub
from mumian.api.v1.resources_pb2 import Accelerator, DeviceShare

from tests.orchestrator.scripted_agent import ScriptedAgent
from tests.orchestrator.tenant import Tenant, spec_of

pytestmark = pytest.mark.etcd


def node(name: str, cpu_milli: int = 1000) -> fleet_pb2.Node:
    """One of the site's."""
    return fleet_pb2.Node(
        id=f"gz/{name}",
        site_id="gz",
        arch="x86_64",
        health=fleet_pb2.HEALTH_READY,
        cpu_milli=cpu_milli,
        memory_mib=8192,
    )


@pytest.fixture
async def site(channel: grpc.aio.Channel) -> AsyncIterator[ScriptedAgent]:
    """Its first node is too small for any task."""
    agent = ScriptedAgent(channel, cpu_milli=10)
    await agent.connect()
    yield agent
    await agent.disconnect()


def tell_nodes(site: ScriptedAgent, *nodes: fleet_pb2.Node) -> None:
    """These are the site's nodes now."""
    site.send(nodes=pb.NodesReport(nodes=nodes))


async def lose_its_node(site: ScriptedAgent, run: pb.RunAllocation) -> None:
    """As an agent tells it: first who is there, then what became of the task."""
    tell_nodes(site, node("n1", 10), node("n3"))
    lost = site.status_of(run.allocation.id, job_pb2.ALLOCATION_STATE_CANCELLED)
    lost.node_lost, lost.message = True, "node gz/n2 has left the site"
    site.report(lost)


async def test_a_task_whose_node_has_left_is_placed_again(site: ScriptedAgent, tenant: Tenant) -> None:
    tell_nodes(site, node("n1", 10), node("n2"))
    job = await tenant.create(spec_of())
    run = await site.run_of(job.id)
    assert run.allocation.node_id == "gz/n2"
    site.status(run.allocation.id, job_pb2.ALLOCATION_STATE_RUNNING)
    await lose_its_node(site, run)
    seen = await tenant.watch(job.id, lambda seen: len(seen.allocations) == 2)
    assert seen.allocations[0].superseded
    assert seen.allocations[0].state_message == "node gz/n2 has left the site"
    assert seen.allocations[1].node_id == "gz/n3"


async def test_a_task_that_runs_at_most_once_fails_with_its_node(site: ScriptedAgent, tenant: Tenant) -> None:
    tell_nodes(site, node("n1", 10), node("n2"))
    spec = spec_of()
    spec.at_most_once = True
    job = await tenant.create(spec)
    run = await site.run_of(job.id)
    site.status(run.allocation.id, job_pb2.ALLOCATION_STATE_RUNNING)
    await lose_its_node(site, run)
    failed = await tenant.until(job.id, job_pb2.JOB_STATE_FAILED)
    assert len(failed.allocations) == 1
    assert "not started again" in failed.allocations[0].state_message


async def test_a_device_that_is_withheld_is_not_given_out(site: ScriptedAgent, tenant: Tenant) -> None:
    cards = node("n2", 8000)
    cards.accelerators.append(Accelerator(kind="gpu", model="H100", count=2))
    cards.devices_withheld.append(DeviceShare(device_index=0, milli=1000))
    tell_nodes(site, node("n1", 10), cards)
    spec = spec_of()
    spec.task_groups[0].resources.accelerators.milli = 1000
    job = await tenant.create(spec)
    run = await site.run_of(job.id)
    assert [share.device_index for share in run.allocation.devices] == [1]
    waiting = await tenant.create(spec)
    seen = await tenant.watch(waiting.id, lambda seen: bool(seen.explanations))
    assert "accelerators" in seen.explanations[0].summary


async def test_a_change_of_nodes_leaves_the_others_as_they_are(
    site: ScriptedAgent, channel: grpc.aio.Channel
) -> None:
    tell_nodes(site, node("n1", 10), node("n2"), node("n3"))
    strange = fleet_pb2.Node(id="other/n1", site_id="other")
    site.send(
        nodes_change=pb.NodesChange(nodes=[node("n2", 500), node("n4"), strange], removed_node_ids=["gz/n3"])
    )
    fleet = FleetServiceStub(channel)
    while "gz/n4" not in (
        cores := {each.id: each.cpu_milli for each in (await fleet.ListNodes(ListNodesRequest())).nodes}
    ):
        pass
    assert cores == {"gz/n1": 10, "gz/n2": 500, "gz/n4": 1000}


async def test_a_gang_that_asks_for_one_switch_gets_one_that_has_room_for_all_of_it(
    site: ScriptedAgent, tenant: Tenant
) -> None:
    placed = [node(f"n{number}") for number in range(1, 5)]
    for each, switch in zip(placed, ("sw-1", "sw-2", "", "sw-2"), strict=True):
        each.switch_id = switch
    tell_nodes(site, *placed)
    spec = spec_of()
    spec.kind = job_pb2.JOB_KIND_GANG
    [group] = spec.task_groups
    group.count, group.together = 2, job_pb2.TOPOLOGY_SWITCH
    group.resources.cpu_milli = 800
    job = await tenant.create(spec)
    seen = await tenant.watch(job.id, lambda seen: len(seen.allocations) == 2)
    assert {each.node_id for each in seen.allocations} == {"gz/n2", "gz/n4"}
    waiting = await tenant.create(spec)
    seen = await tenant.watch(waiting.id, lambda seen: bool(seen.explanations))
    assert "together: 2 tasks asked on one switch; the best, switch sw-1, has room for 1" in (
        seen.explanations[0].summary
    )


async def test_a_site_counts_the_switches_and_racks_that_its_nodes_name(
    site: ScriptedAgent, channel: grpc.aio.Channel
) -> None:
    placed = [node(f"n{number}") for number in range(1, 5)]
    for each, switch in zip(placed, ("sw-1", "sw-1", "sw-2", ""), strict=True):
        each.switch_id, each.rack_id = switch, "r1"
    tell_nodes(site, *placed)
    fleet = FleetServiceStub(channel)
    while (usage := (await fleet.ListSites(ListSitesRequest())).sites[0].usage).node_count < 4:
        pass
    assert (usage.switch_count, usage.rack_count, usage.switchless_node_count) == (2, 1, 1)


async def test_where_the_energy_of_a_node_went_is_shown_and_outlives_a_report_of_the_nodes(
    site: ScriptedAgent, channel: grpc.aio.Channel
) -> None:
    energy = fleet_pb2.NodeEnergy(node_id="gz/n1", metered_uj=10, allocations_uj=7, idle_uj=3)
    site.send(power=pb.PowerReport(nodes=[energy]))
    tell_nodes(site, node("n1", 10), node("n2"))
    fleet = FleetServiceStub(channel)

    async def shown() -> dict[str, fleet_pb2.Node]:
        return {each.id: each for each in (await fleet.ListNodes(ListNodesRequest())).nodes}

    while "gz/n2" not in (nodes := await shown()):
        pass
    assert nodes["gz/n1"].energy == energy
