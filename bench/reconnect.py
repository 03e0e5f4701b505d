"""A site that was cut off comes back with many results: `python -m bench.reconnect`.

A real coordinator on a real etcd, and an agent without tasks, so that only the coordinator is measured: from
the last report until the tenant sees that the site is silent, at the default of 10 s, and from the new hello
until every result is durable and the tenant sees the job's end.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

import click
from mumian.api.v1 import job_pb2

from bench.report import Report
from bench.store import private_etcd
from tests.orchestrator.conftest import Coordinator
from tests.orchestrator.scripted_agent import ScriptedAgent
from tests.orchestrator.tenant import Tenant, spec_of

RUNNING, SUCCEEDED = job_pb2.ALLOCATION_STATE_RUNNING, job_pb2.ALLOCATION_STATE_SUCCEEDED
UNKNOWN = job_pb2.ALLOCATION_STATE_UNKNOWN


async def _measure(report: Report, coordinator: Coordinator, count: int) -> None:
    async with coordinator.channel() as channel:
        tenant, agent = Tenant(channel), ScriptedAgent(channel, cpu_milli=10_000_000)
        await agent.connect()
        job = await tenant.create(spec_of(count=count, cpu_milli=1))
        await agent.until(lambda: len([c for c in agent.commands if c.HasField("run")]) == count)
        ids = [c.run.allocation.id for c in agent.commands if c.HasField("run")]
        for allocation_id in ids:
            agent.status(allocation_id, RUNNING)
        await tenant.until(job.id, job_pb2.JOB_STATE_RUNNING)

        await agent.disconnect()
        silent_s = time.monotonic()
        await tenant.watch(job.id, lambda seen: all(a.state == UNKNOWN for a in seen.allocations))
        report.line("reconnect_silent_to_unreachable", time.monotonic() - silent_s, "s")

        back = ScriptedAgent(channel, cpu_milli=10_000_000)
        healed_s = time.monotonic()
        ended = tuple(back.status_of(allocation_id, SUCCEEDED, exit_code=0) for allocation_id in ids)
        await back.connect(running=ended)
        await tenant.until(job.id, job_pb2.JOB_STATE_SUCCEEDED)
        report.line("reconnect_healed_to_reconciled", time.monotonic() - healed_s, "s")
        await back.until(lambda: len([c for c in back.commands if c.HasField("status_stored")]) == count)
        await back.disconnect()


@click.command()
@click.option("--results", type=click.IntRange(1, 1000), default=1000, show_default=True)
def main(results: int) -> None:
    """Seconds from silence to unreachable, and from the hello of a site to all its results durable."""
    report = Report("reconnect")
    with tempfile.TemporaryDirectory() as folder, private_etcd() as endpoint:
        coordinator = Coordinator(Path(folder), endpoint, unreachable_after_ms=10_000)
        try:
            asyncio.run(_measure(report, coordinator, results))
        finally:
            coordinator.running.sweep()


if __name__ == "__main__":
    main()
