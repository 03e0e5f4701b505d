"""What callers see of sites, nodes and links: totals that add up, at the cost of what is shown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from mumian.api.v1 import fleet_pb2
from mumian.api.v1.fleet_service_pb2 import (
    GetSiteRequest,
    ListLinksRequest,
    ListNodesRequest,
    ListSitesRequest,
)
from mumian_orchestrator.adapters.grpc.fleet_service import FleetService
from mumian_orchestrator.adapters.memory.key_value import MemoryCluster
from mumian_orchestrator.main.composition import Services
from mumian_orchestrator.services import fleet

from tests.memory.leader import leading
from tests.memory.site import Site
from tests.orchestrator.tenant import spec_of

_SITES, _NODES = ("a", "a-b", "b"), 7
_NO_CONTEXT: Any = None


def _nodes(site_id: str) -> list[fleet_pb2.Node]:
    """Each of another size, some with devices, of which some are withheld."""
    nodes = []
    for number in range(_NODES):
        node = fleet_pb2.Node(
            id=f"{site_id}/n{number}",
            site_id=site_id,
            arch="x86_64",
            health=fleet_pb2.HEALTH_READY,
            cpu_milli=2000 + 1000 * number,
            memory_mib=4096 * (number + 1),
            core_active_power_mw=4000 + number,
            switch_id=f"s{number // 3}" if number else "",
            rack_id=f"r{number // 4}",
            cpu_used_permille=500,
        )
        if number % 2:
            model = {"active_power_mw": 250_000 + number, "fp16_gflops": 1000 * number}
            node.accelerators.add(model="L4", count=2, memory_mib=8192, **model)
            node.devices_withheld.add(device_index=1, milli=500)
        nodes.append(node)
    return nodes


@pytest.fixture
async def services() -> AsyncIterator[Services]:
    """With some sites, and work of two tenants on their cores and devices."""
    async with leading(MemoryCluster()) as services:
        for site_id in _SITES:
            site = Site(services, site_id)
            site.site.facility_power_mw = 1000
            await site.connect()
            services.fleet.set_nodes(site_id, _nodes(site_id))
        for number, tenant in enumerate(("acme", "other") * 10):
            spec = spec_of(count=2, cpu_milli=500 + 100 * number)
            if number % 3 == 0:
                spec.task_groups[0].resources.accelerators.milli = 250
            await services.admission.create(tenant, f"r{number}", spec)
        await asyncio.sleep(1)
        yield services


@pytest.mark.parametrize("tenant", [None, "acme", "nobody"])
async def test_a_sites_totals_are_the_sums_over_its_nodes_as_they_are_shown(
    services: Services, tenant: str | None
) -> None:
    for site in services.fleet.sites(tenant):
        nodes, usage = services.fleet.nodes(site.id, tenant), site.usage
        models = [model for node in nodes for model in node.accelerators]
        withheld_milli = sum(share.milli for node in nodes for share in node.devices_withheld)
        held_uw = 0
        for node in nodes:
            power_mw = [model.active_power_mw for model in node.accelerators for _ in range(model.count)]
            held_uw += node.cpu_milli_allocated * node.core_active_power_mw
            held_uw += sum(share.milli * power_mw[share.device_index] for share in node.devices_allocated)
        assert usage == fleet_pb2.SiteUsage(
            node_count=_NODES,
            cpu_milli_capacity=sum(node.cpu_milli for node in nodes),
            cpu_milli_allocated=sum(node.cpu_milli_allocated for node in nodes),
            memory_mib_capacity=sum(node.memory_mib for node in nodes),
            memory_mib_allocated=sum(node.memory_mib_allocated for node in nodes),
            accelerator_milli_capacity=1000 * sum(model.count for model in models) - withheld_milli,
            accelerator_milli_allocated=sum(s.milli for node in nodes for s in node.devices_allocated),
            fp16_gflops_capacity=sum(model.fp16_gflops * model.count for model in models),
            facility_power_mw_allocated=held_uw * 1250 // 10**6,
            allocation_count=usage.allocation_count,
            switch_count=3,
            rack_count=2,
            switchless_node_count=1,
        )
        assert (usage.allocation_count > 0) == (usage.cpu_milli_allocated > 0)
        assert (site.facility_power_mw > 0) == (tenant is None), "what all use is not for tenants"
        assert all((node.cpu_used_permille > 0) == (tenant is None) for node in nodes)
    counts = {who: sum(s.usage.allocation_count for s in services.fleet.sites(who)) for who in (None, "acme")}
    assert counts[None] == 40 > counts["acme"] == 20
    assert any(s.usage.accelerator_milli_allocated for s in services.fleet.sites())


async def test_lists_cost_what_they_show(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of 1,000 sites copied all of their 100,000 nodes, and held up the event loop for seconds."""
    copied: list[str] = []
    copy = fleet._fresh_node

    def counting(node: fleet_pb2.Node) -> fleet_pb2.Node:
        copied.append(node.id)
        return copy(node)

    monkeypatch.setattr(fleet, "_fresh_node", counting)
    service = FleetService(services.fleet, services.disconnections)
    sites = await service.ListSites(ListSitesRequest(page_size=2), _NO_CONTEXT)
    assert [site.id for site in sites.sites] == ["a", "a-b"]
    await service.GetSite(GetSiteRequest(site_id="b"), _NO_CONTEXT)
    assert not copied
    shown: list[str] = []
    token = ""
    while True:
        request = ListNodesRequest(page_size=4, page_token=token)
        page = await service.ListNodes(request, _NO_CONTEXT)
        shown += [node.id for node in page.nodes]
        if not (token := page.next_page_token):
            break
    assert shown == sorted(f"{site_id}/n{number}" for site_id in _SITES for number in range(_NODES))
    assert sorted(copied) == shown, "each once"


async def test_pages_of_links_have_each_once_in_order_and_copy_what_they_show(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page of 500 copied, and sorted, the 500,000 links of 1,000 sites: two seconds of the event loop."""
    ends = [(start, end) for start in _SITES for end in _SITES if start != end]
    services.fleet.set_links([fleet_pb2.Link(from_id=start, to_site_id=end) for start, end in ends])
    copied = 0

    def counting() -> fleet_pb2.Link:
        nonlocal copied
        copied += 1
        return fleet_pb2.Link()

    monkeypatch.setattr(fleet, "Link", counting)
    service = FleetService(services.fleet, services.disconnections)
    for from_id in ("", "a-b"):
        shown: list[tuple[str, str]] = []
        token, copied = "", 0
        while True:
            request = ListLinksRequest(page_size=2, page_token=token, from_id=from_id)
            page = await service.ListLinks(request, _NO_CONTEXT)
            shown += [(link.from_id, link.to_site_id) for link in page.links]
            if not (token := page.next_page_token):
                break
        assert shown == sorted(pair for pair in ends if from_id in ("", pair[0]))
        assert copied == len(shown)
