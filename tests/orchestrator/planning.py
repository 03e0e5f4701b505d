"""What the tests of re-optimisation and what-if share: two sites, one dear and one cheap."""

from __future__ import annotations

import grpc
from mumian.api.v1 import fleet_pb2, job_pb2
from mumian.api.v1.planning_pb2 import FleetChange
from mumian.api.v1.planning_service_pb2 import (
    OptimizeFleetRequest,
    OptimizeFleetResponse,
    WhatIfRequest,
    WhatIfResponse,
)
from mumian.api.v1.planning_service_pb2_grpc import PlanningServiceStub

from tests.orchestrator.scripted_agent import ScriptedAgent
from tests.orchestrator.tenant import Tenant

RUNNING = job_pb2.ALLOCATION_STATE_RUNNING
SERVICE = job_pb2.JOB_KIND_SERVICE
CORE_MICROCNY = {"dear": 900_000, "cheap": 100_000}
MOVE_MICROCNY = 10_000 // 24  # the default price of a move, by the hour


async def site(channel: grpc.aio.Channel, site_id: str, cpu_milli: int = 4000) -> ScriptedAgent:
    """The connected agent of a site whose cores have the price of its name."""
    facts = fleet_pb2.Site()
    facts.prices.cpu_core_hour_microcny = CORE_MICROCNY[site_id]
    agent = ScriptedAgent(channel, site_id=site_id, cpu_milli=cpu_milli, site=facts)
    await agent.connect()
    return agent


async def running(tenant: Tenant, agent: ScriptedAgent, spec: job_pb2.JobSpec) -> job_pb2.Job:
    """A job of one task that runs at a site."""
    job = await tenant.create(spec)
    agent.status((await agent.run_of(job.id)).allocation.id, RUNNING)
    return await tenant.until(job.id, job_pb2.JOB_STATE_RUNNING)


async def optimize(channel: grpc.aio.Channel, dry_run: bool = False) -> OptimizeFleetResponse:
    """One run on demand."""
    request = OptimizeFleetRequest(dry_run=dry_run, time_limit_ms=200)
    return await PlanningServiceStub(channel).OptimizeFleet(request)


async def what_if(channel: grpc.aio.Channel, *changes: FleetChange) -> WhatIfResponse:
    """One question."""
    request = WhatIfRequest(changes=changes, time_limit_ms=200)
    return await PlanningServiceStub(channel).WhatIf(request)
