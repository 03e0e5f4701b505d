"""What runs at sites that a new leader has not heard of yet still counts for constraints between tasks."""

from __future__ import annotations

import grpc
import pytest
from mumian.api.v1 import job_pb2

from tests.orchestrator.conftest import Coordinator
from tests.orchestrator.scripted_agent import ScriptedAgent
from tests.orchestrator.tenant import Tenant, spec_of

pytestmark = pytest.mark.etcd

RUNNING = job_pb2.ALLOCATION_STATE_RUNNING


async def test_a_spread_counts_what_runs_at_a_site_that_is_still_silent(
    coordinator: Coordinator, channel: grpc.aio.Channel
) -> None:
    """Both sites are of one operator, and the job wants at most one task with each operator."""
    first = ScriptedAgent(channel, "first")
    await first.connect()
    spec = spec_of(count=2, kind=job_pb2.JOB_KIND_SERVICE)
    spec.task_groups[0].spreads.add(topology=job_pb2.TOPOLOGY_OPERATOR, max_tasks=1)
    job = await Tenant(channel).create(spec)
    runs = (await first.run_of(job.id)).allocation.id
    first.status(runs, RUNNING)
    await Tenant(channel).watch(job.id, lambda seen: [a.state for a in seen.allocations] == [RUNNING])
    coordinator.running.kill()
    await first.disconnect()
    coordinator.start()
    async with coordinator.channel() as again:
        second = ScriptedAgent(again, "second")
        await second.connect()
        tenant = Tenant(again)
        counted = await tenant.watch(job.id, lambda seen: "op already holds 1" in str(seen.explanations))
        assert len(counted.allocations) == 1
        # Once the first site is back, its node is what it says, and the task is counted once.
        first = ScriptedAgent(again, "first")
        await first.connect(running=(first.status_of(runs, RUNNING),))
        fills = await tenant.create(spec_of("fills", cpu_milli=3000))
        assert (await first.run_of(fills.id)).allocation.node_id == "first/n1"
        await first.disconnect()
        await second.disconnect()
