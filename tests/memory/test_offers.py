"""Price lists at work: by the hour, fixed at commit, no more devices than are offered. In virtual time."""

from __future__ import annotations

import asyncio

from mumian.api.v1 import job_pb2
from mumian_orchestrator.adapters.memory.key_value import MemoryCluster
from mumian_orchestrator.domain.periods import moment_of

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
