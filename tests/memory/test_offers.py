"""Price lists at work: by the hour, fixed at commit, no more devices than are offered. In virtual time."""

from __future__ import annotations

import asyncio

from mumian.api.v1 import job_pb2
from mumian_orchestrator.adapters.memory.key_value import MemoryCluster
from mumian_orchestrator.domain.periods import moment_of
from mumian_orchestrator.main.composition import Services

from tests.memory.leader import leading
from tests.memory.money import CNY, HOUR_S, HOURLY, MOMENT_S, SUCCEEDED, audited, created, joined, timed
from tests.memory.site import CLOCK, Site
from tests.orchestrator.tenant import spec_of

BY_DAY_AND_NIGHT = """
kind: offers
operator: op
prices:
  - {what: cpu, cny_per_hour: 2, hours: 8-20, from: 2026-01-01, until: 2026-12-31}
  - {what: cpu, cny_per_hour: 1, from: 2026-01-01, until: 2026-12-31}
"""
TWICE_AS_DEAR = BY_DAY_AND_NIGHT.replace("cny_per_hour: 2", "cny_per_hour: 40").replace(
    "cny_per_hour: 1,", "cny_per_hour: 20,"
)
ONE_DEVICE = """
kind: offers
operator: op
prices: [{what: H100, cny_per_hour: 9, devices: 1, from: 2026-01-01, until: 2026-12-31}]
"""
MEMORY_ONLY = """
kind: offers
operator: op
prices: [{what: memory, cny_per_hour: 3, from: 2026-01-01, until: 2026-12-31}]
"""
EGRESS_ONLY = MEMORY_ONLY.replace("memory, cny_per_hour", "egress, cny_per_gib")


def in_force_now() -> int:
    """What a core costs by the list at this hour, in CNY."""
    return 2 if 8 <= moment_of(CLOCK.now().ToMilliseconds()).hour < 20 else 1


async def test_the_price_goes_by_the_hour_and_is_fixed_when_the_work_is_placed() -> None:
    cluster = MemoryCluster()
    async with leading(cluster, HOURLY) as services:
        site = await joined(services)
        await services.treasury.apply(BY_DAY_AND_NIGHT)
        first, seen = None, set()
        for number in range(3):
            price = in_force_now()
            [allocation] = (await created(services, timed(24), f"r{number}")).allocations
            assert allocation.cost.rent_microcny_per_hour == price * CNY, number
            seen.add(price)
            first = first or (allocation, price, CLOCK.now())
            await asyncio.sleep(12 * HOUR_S)
        assert seen == {1, 2}
        await services.treasury.apply(TWICE_AS_DEAR)
        assert first is not None
        allocation, price, start = first
        end = CLOCK.now()
        site.status(allocation.id, SUCCEEDED, start_time=start, end_time=end)
        await asyncio.sleep(MOMENT_S)
        receipt = services.admission.get("acme", allocation.job_id).allocations[0].receipt
        held_ms = end.ToMilliseconds() - start.ToMilliseconds()
        assert receipt.rent_microcny == price * CNY * held_ms // 3_600_000
    await audited(cluster)


async def _with_hours(services: Services, *rent_permille: int) -> None:
    """A site whose core and whose GiB cost CNY 1, of which so much counts hour by hour from now."""
    site = Site(services)
    site.site.prices.cpu_core_hour_microcny = site.site.prices.memory_gib_hour_microcny = CNY
    site.site.forecast.first_hour_unix_s = CLOCK.now().seconds // HOUR_S * HOUR_S
    for permille in rent_permille:
        site.site.forecast.hours.add(rent_permille=permille)
    await site.connect()


async def _rent_of_a_core_and_a_gib(services: Services, request_id: str) -> int:
    spec = timed(1)
    spec.task_groups[0].resources.memory_mib = 1024
    [allocation] = (await created(services, spec, request_id)).allocations
    return allocation.cost.rent_microcny_per_hour


async def test_what_a_list_leaves_out_costs_its_own_price_and_the_hours_part_of_that() -> None:
    """A list with one price took every other price's cheap and dear hours away."""
    async with leading(MemoryCluster(), HOURLY) as services:
        await _with_hours(services, 500, 2000, 0)
        await services.treasury.apply(MEMORY_ONLY)
        seen = []
        for number in range(4):  # the last is after the forecast
            seen.append(await _rent_of_a_core_and_a_gib(services, f"r{number}"))
            await asyncio.sleep(HOUR_S)
        assert seen == [3 * CNY + CNY // 2, 3 * CNY + 2 * CNY, 3 * CNY + CNY, 3 * CNY + CNY]


async def test_a_list_without_rent_changes_nothing_of_the_rent() -> None:
    async with leading(MemoryCluster(), HOURLY) as services:
        await _with_hours(services, 500, 700, 900)
        before = await _rent_of_a_core_and_a_gib(services, "before")
        assert before < 2 * CNY
        await services.treasury.apply(EGRESS_ONLY)
        assert await _rent_of_a_core_and_a_gib(services, "after") == before


async def test_no_more_devices_are_used_than_are_offered_and_the_rest_waits() -> None:
    async with leading(MemoryCluster(), HOURLY) as services:
        site = Site(services)
        site.node.accelerators.add(kind="gpu", model="H100", count=4)
        await site.connect()
        await services.treasury.apply(ONE_DEVICE)
        spec = spec_of(kind=job_pb2.JOB_KIND_BATCH)
        spec.task_groups[0].resources.accelerators.milli = 1000
        first, second = [await created(services, spec, name) for name in ("a", "b")]
        assert first.allocations[0].cost.rent_microcny_per_hour >= 9 * CNY
        assert not second.allocations
        await services.treasury.apply(ONE_DEVICE.replace("devices: 1", "devices: 2"))
        await asyncio.sleep(MOMENT_S)
        assert services.admission.get("acme", second.id).allocations
