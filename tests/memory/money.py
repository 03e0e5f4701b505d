"""A site whose core costs CNY 1 an hour, and looks at budgets and at the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from mumian.api.v1 import job_pb2
from mumian.api.v1.fleet_pb2 import Zone
from mumian.api.v1.job_pb2 import Job, JobSpec
from mumian_orchestrator.adapters.memory.key_value import MemoryCluster, MemoryKeyValue
from mumian_orchestrator.domain.money.ledger_audit import Audit, audit_of
from mumian_orchestrator.main.composition import Services
from mumian_orchestrator.main.config import Config
from mumian_orchestrator.services.store.reader import read_whole

from tests.memory.leader import KEY_PREFIX
from tests.memory.site import Site, status_of
from tests.orchestrator.tenant import spec_of

RUNNING, SUCCEEDED = job_pb2.ALLOCATION_STATE_RUNNING, job_pb2.ALLOCATION_STATE_SUCCEEDED
CANCELLED = job_pb2.ALLOCATION_STATE_CANCELLED
MOMENT_S, HOUR_S = 0.5, 3600
CNY = 10**6
# Nobody is silent for too long, so that nothing but the budget ends work.
HOURLY = Config(unreachable_after_ms=10**9, zones=(Zone(id="users"),))
OWNERS = """
kind: registry
enterprises: [{id: acme, sector: ai, district: CN-GD-GZ}]
operators: [{id: op}]
"""
POLICY = """
kind: vouchers
policies:
  - id: city
    from: 2026-01-01
    until: 2026-12-31
    pool_cny_per_year: 3
    enterprise_cny_per_year: 2
    accelerators_only: false
    shares: [{percent: 50}]
"""


async def stored(cluster: MemoryCluster) -> dict[str, bytes]:
    return await read_whole(MemoryKeyValue(cluster), KEY_PREFIX)


async def audited(cluster: MemoryCluster) -> Audit:
    return audit_of(await stored(cluster))


async def joined(services: Services, *running: job_pb2.Allocation, cpu_milli: int = 400_000) -> Site:
    site = Site(services, cpu_milli=cpu_milli)
    site.site.prices.cpu_core_hour_microcny = site.site.prices.egress_gib_microcny = CNY
    told = [status_of(a.id, a.state, start_time=a.start_time) for a in running]
    await site.connect(*told)
    return site


def timed(hours: float = 1.0, **job: object) -> JobSpec:
    """One task of one core with a time limit: all of it is reserved, and 10 s to end."""
    spec = spec_of(**job)  # type: ignore[arg-type]
    spec.task_groups[0].time_limit_ms = int(hours * HOUR_S * 1000)
    return spec


def fund(services: Services, period: str = "2026-01") -> Mapping[str, int]:
    [found] = [each for each in services.treasury.budget("acme").funds if each.period == period]
    assert found.granted_microcny == (
        found.available_microcny + found.reserved_microcny + found.spent_microcny
    )
    return {
        "available": found.available_microcny,
        "reserved": found.reserved_microcny,
        "spent": found.spent_microcny,
    }


async def created(services: Services, spec: JobSpec, request_id: str) -> Job:
    job = await services.admission.create("acme", request_id, spec)
    await asyncio.sleep(MOMENT_S)
    return services.admission.get("acme", job.id)
