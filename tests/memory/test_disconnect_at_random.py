"""Links of three sites that are cut and healed at random: an at-most-once task never runs twice at a time,
and when all is healed every task runs once.
"""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from mumian.agent.v1.agent_pb2 import AllocationStatus, CoordinatorCommand, RunAllocation
from mumian.api.v1 import job_pb2
from mumian.api.v1.job_pb2 import JobSpec, OnDisconnect
from mumian_orchestrator.adapters.memory.key_value import MemoryCluster
from mumian_orchestrator.adapters.memory.virtual_time import run_in_virtual_time

from tests.memory.leader import leading, replayed_jobs_are_the_stored_ones
from tests.memory.site import CLOCK, Site, status_of
from tests.orchestrator.tenant import spec_of

RUNNING, CANCELLED = job_pb2.ALLOCATION_STATE_RUNNING, job_pb2.ALLOCATION_STATE_CANCELLED
STEP_S = 0.5
# To be cut off, not to hear, not to be heard, or well again.
LINKS = ["cut", "deaf", "mute", "healed"]


class ObedientSite(Site):
    """Runs what it is told to, stops what it is told to or what has a stop_after when it is cut off."""

    def __init__(self, services: Any, site_id: str) -> None:
        super().__init__(services, site_id)
        self.link = "healed"
        self.known: dict[str, AllocationStatus] = {}
        self._stop_after_s: dict[str, int] = {}
        self._contact_s = 0.0
        self._is_open = False
        self._is_broken = False  # something was lost on the way, so the stream does not go on

    def running(self) -> set[str]:
        return {allocation_id for allocation_id, status in self.known.items() if status.state == RUNNING}

    async def step(self) -> None:
        """Half a second of an agent's life."""
        silent_s = CLOCK.monotonic_s() - self._contact_s
        for allocation_id in self.running():
            stop_after_s = self._stop_after_s[allocation_id]
            if stop_after_s and silent_s > stop_after_s - 2 * STEP_S:
                self._end(allocation_id, cut_off=True)
        if self._is_open and (
            self.link == "cut" or self.closed or (self._is_broken and self.link == "healed")
        ):
            self._is_open = self._is_broken = False
            self.disconnect()
        elif not self._is_open and self.link == "healed":
            self._is_open = True
            sent_s = CLOCK.monotonic_s()
            await self.connect(*self.known.values())
            self._contact_s = sent_s
        elif self._is_open:
            self._tell(heartbeat={"sent_ns": int(CLOCK.monotonic_s() * 1e9)})

    def send(self, command: CoordinatorCommand) -> None:
        if self.link in ("cut", "deaf"):
            self._is_broken = True
            return
        match command.WhichOneof("command"):
            case "welcome":
                wanted = [run.allocation.id for run in command.welcome.allocations]
                for allocation_id in self.running().difference(wanted):
                    self._end(allocation_id)
                for run in command.welcome.allocations:
                    self._run(run)
            case "run":
                self._run(command.run)
            case "stop":
                self._end(command.stop.allocation_id)
            case "heartbeat_seen":
                self._contact_s = max(self._contact_s, command.heartbeat_seen.sent_ns / 1e9)

    def _run(self, run: RunAllocation) -> None:
        if run.allocation.id not in self.known:
            self._stop_after_s[run.allocation.id] = run.on_disconnect.stop_after_s
            self._note(status_of(run.allocation.id, RUNNING, start_time=CLOCK.now()))

    def _end(self, allocation_id: str, **more: Any) -> None:
        if allocation_id not in self.known or self.known[allocation_id].state == RUNNING:
            self._note(status_of(allocation_id, CANCELLED, **more))

    def _note(self, status: AllocationStatus) -> None:
        self.known[status.allocation_id] = status
        asyncio.get_running_loop().call_soon(lambda: self._tell(allocation_status=status))

    def _tell(self, **report: Any) -> None:
        if self._is_open and self.link in ("deaf", "healed"):
            self.report(**report)
        else:
            self._is_broken = True


def specs() -> list[JobSpec]:
    """One of each contract."""
    service = job_pb2.JOB_KIND_SERVICE
    return [
        spec_of("once", kind=service, at_most_once=True, on_disconnect=OnDisconnect(lost_after_s=20)),
        spec_of(
            "once-stopped",
            kind=service,
            at_most_once=True,
            on_disconnect=OnDisconnect(lost_after_s=15, stop_after_s=20),
        ),
        spec_of("more", kind=service, on_disconnect=OnDisconnect(lost_after_s=15, stop_after_s=60)),
        spec_of("stays", kind=service, on_disconnect=OnDisconnect(lost_after_s=15, replace=False)),
    ]


async def play(script: list[tuple[int, str, int]], cluster: MemoryCluster) -> None:
    async with leading(cluster) as services:
        sites = [ObedientSite(services, site_id) for site_id in "abc"]

        async def live(seconds: float) -> None:
            for _ in range(int(seconds / STEP_S)):
                for site in sites:
                    await site.step()
                await asyncio.sleep(STEP_S)
                for job in jobs:
                    if job.spec.at_most_once:
                        copies = [a for site in sites for a in site.running() if a.startswith(job.id)]
                        assert len(copies) <= 1, f"{copies} run at the same time"

        jobs: list[job_pb2.Job] = []
        await live(2)
        jobs += [await services.admission.create("acme", spec.name, spec) for spec in specs()]
        await live(2)
        for number, link, seconds in script:
            sites[number].link = link
            await live(seconds)
        for site in sites:
            site.link = "healed"
        await live(60)
        for made in jobs:
            job = services.admission.get("acme", made.id)
            copies = [a for site in sites for a in site.running() if a.startswith(job.id)]
            told = [a.id for a in job.allocations if a.state == RUNNING]
            assert (job.state, copies, told) == (job_pb2.JOB_STATE_RUNNING, told, copies)
            assert len(copies) == 1
    await replayed_jobs_are_the_stored_ones(cluster)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(LINKS), st.integers(1, 50)), max_size=8))
def test_every_task_runs_once_whatever_the_links_do(script: list[tuple[int, str, int]]) -> None:
    run_in_virtual_time(play(script, MemoryCluster()))
