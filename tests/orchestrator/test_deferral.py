"""Jobs that wait for a cheaper hour, as their tenant sees it."""

from __future__ import annotations

import time

import grpc
import pytest
from mumian.api.v1 import fleet_pb2, job_pb2

from tests.orchestrator.scripted_agent import ScriptedAgent
from tests.orchestrator.tenant import Tenant, spec_of

pytestmark = pytest.mark.etcd

WAITS_S = 6


def site_with_dear_hours() -> fleet_pb2.Site:
    """A site whose rent is ten times as high in this hour and the next as in the eight after."""
    site = fleet_pb2.Site()
    site.prices.cpu_core_hour_microcny = 1_000_000
    site.forecast.first_hour_unix_s = int(time.time()) // 3600 * 3600
    site.forecast.hours.extend(fleet_pb2.HourForecast(rent_permille=1000) for _ in range(2))
    site.forecast.hours.extend(fleet_pb2.HourForecast(rent_permille=100) for _ in range(8))
    return site


async def test_a_job_waits_for_a_cheaper_start_and_then_starts_by_itself(
    channel: grpc.aio.Channel, tenant: Tenant
) -> None:
    agent = ScriptedAgent(channel, site=site_with_dear_hours())
    await agent.connect()
    # Each second later is cheaper, so it starts as late as its deadline allows.
    run_time_s = 9000
    deferral = job_pb2.Deferral(run_time_s=run_time_s, finish_within_s=run_time_s + WAITS_S)
    job = await tenant.create(spec_of(deferral=deferral))
    waiting = await tenant.watch(job.id, lambda seen: bool(seen.explanations))
    explanation = waiting.explanations[0]
    assert waiting.state == job_pb2.JOB_STATE_PENDING
    assert waiting.state_message == "1 of 1 task deferred to a cheaper hour"
    assert explanation.deferred_to_unix_s == job.create_time.seconds + WAITS_S
    assert explanation.deferral_saves_microcny > 0
    assert "1 task deferred to" in explanation.summary
    run = await agent.run_of(job.id)
    assert run.allocation.create_time.seconds >= explanation.deferred_to_unix_s
    await agent.disconnect()


async def test_a_deferred_job_can_be_cancelled(channel: grpc.aio.Channel, tenant: Tenant) -> None:
    agent = ScriptedAgent(channel, site=site_with_dear_hours())
    await agent.connect()
    job = await tenant.create(spec_of(deferral=job_pb2.Deferral(run_time_s=9000, finish_within_s=20_000)))
    await tenant.watch(job.id, lambda seen: bool(seen.explanations))
    assert (await tenant.cancel(job.id)).state == job_pb2.JOB_STATE_CANCELLED
    await agent.disconnect()
