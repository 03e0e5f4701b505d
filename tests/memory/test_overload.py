"""Tenants that ask for more than can be done, and what others notice of it."""

from __future__ import annotations

import asyncio
from collections import Counter

from mumian.api.v1 import error_pb2
from mumian_orchestrator.adapters.memory.key_value import MemoryCluster
from mumian_orchestrator.domain.errors import RequestRefusedError
from mumian_orchestrator.services.admission import CHANGES_AT_ONCE, WAITING_OF_TENANT

from tests.memory.city import City
from tests.memory.leader import leading
from tests.orchestrator.tenant import spec_of

FLOOD = 4 * WAITING_OF_TENANT


async def test_a_flood_of_one_tenant_is_bounded_and_passes_another_by() -> None:
    cluster = MemoryCluster()
    async with leading(cluster) as services:
        city = City(services, "a")
        await city.connect()
        finished: list[str] = []

        async def submit(tenant: str, number: int) -> None:
            try:
                await services.admission.create(tenant, f"{tenant}-{number}", spec_of(cpu_milli=0))
                finished.append(tenant)
            except RequestRefusedError as refused:
                assert refused.reason == error_pb2.ERROR_REASON_OVERLOADED
                finished.append(f"{tenant} refused")

        flood = [asyncio.create_task(submit("flood", number)) for number in range(FLOOD)]
        await asyncio.sleep(0)
        changes = services.admission.changes
        assert changes.under_way + changes.waiting == CHANGES_AT_ONCE + WAITING_OF_TENANT
        await submit("quiet", 0)
        before = Counter(finished[: finished.index("quiet")])
        assert before["flood"] <= 2 * CHANGES_AT_ONCE, "it waited behind no more than what was under way"
        await asyncio.gather(*flood)
        after = Counter(finished)
        assert after["flood"] == CHANGES_AT_ONCE + WAITING_OF_TENANT
        assert after["flood refused"] == FLOOD - after["flood"]
        assert len(services.admission.list("flood", [])) == after["flood"]
        # What was refused has left nothing behind, and is taken when it comes again.
        await submit("flood", FLOOD - 1)
        assert len(services.admission.list("flood", [])) == after["flood"] + 1
