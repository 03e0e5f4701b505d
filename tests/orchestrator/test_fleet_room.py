"""What is left of a power cap and of a link, as operators see it."""

from __future__ import annotations

import grpc
import pytest
from mumian.api.v1 import fleet_pb2, job_pb2
from mumian.api.v1.fleet_service_pb2 import GetSiteRequest, ListLinksRequest
from mumian.api.v1.fleet_service_pb2_grpc import FleetServiceStub

from tests.orchestrator.scripted_agent import ScriptedAgent
from tests.orchestrator.tenant import Tenant, spec_of

pytestmark = pytest.mark.etcd


async def test_a_site_tells_what_its_tasks_take_of_its_power_cap_and_of_its_links(
    channel: grpc.aio.Channel, tenant: Tenant
) -> None:
    # At a PUE of 1.25 two cores take 2 x 10 W x 1.25 of it, and a third would take too much.
    capped = fleet_pb2.Site(power_cap_mw=30_000)
    agent = ScriptedAgent(channel, site=capped, core_active_power_mw=10_000)
    await agent.connect()
    agent.links(2000, bandwidth_kbps=100_000)
    spec = spec_of(count=2, kind=job_pb2.JOB_KIND_SERVICE)
    spec.task_groups[0].zone_traffic.add(zone_id="tianhe", bandwidth_kbps=30_000)
    job = await tenant.create(spec)
    await tenant.watch(job.id, lambda seen: len(seen.allocations) == 2)
    more = await tenant.create(spec_of())
    waiting = await tenant.watch(more.id, lambda seen: bool(seen.explanations))
    assert "power cap: 25 W held + 12.5 W asked > 30 W at the meter" in waiting.explanations[0].summary
    fleet = FleetServiceStub(channel)
    site = (await fleet.GetSite(GetSiteRequest(site_id="gz"))).site
    assert (site.power_cap_mw, site.usage.facility_power_mw_allocated) == (30_000, 25_000)
    (link,) = (await fleet.ListLinks(ListLinksRequest())).links
    assert (link.bandwidth_kbps, link.bandwidth_kbps_allocated) == (100_000, 60_000)
