"""A leader and some sites whose agents show that they live, until they are cut off."""

from __future__ import annotations

import asyncio
from typing import Any

from mumian.api.v1 import job_pb2
from mumian.api.v1.job_pb2 import Job, JobSpec
from mumian_orchestrator.main.composition import Services

from tests.memory.site import CLOCK, Site

RUNNING = job_pb2.ALLOCATION_STATE_RUNNING
MOMENT_S = 1.0
ANSWERS = job_pb2.Endpoint(port="main", address="127.0.0.1:80")


class City:
    """A leader and some sites that beat like a heart, but for those that are cut off."""

    def __init__(self, services: Services, *site_ids: str) -> None:
        self.services = services
        # The first is the cheapest, so what is placed goes there first.
        self.sites = {site_id: Site(services, site_id) for site_id in site_ids}
        for number, site in enumerate(self.sites.values()):
            site.site.prices.cpu_core_hour_microcny = 1000 * (number + 1)
        self._beating: dict[str, asyncio.Task[None]] = {}

    async def connect(self) -> None:
        for site_id in self.sites:
            await self.heal(site_id)

    def cut(self, *site_ids: str) -> None:
        for site_id in site_ids:
            self._beating.pop(site_id).cancel()
            self.sites[site_id].disconnect()

    async def heal(self, site_id: str, *running: Any) -> None:
        await self.sites[site_id].connect(*running)
        self._beating[site_id] = asyncio.create_task(self._beat(self.sites[site_id]))

    async def _beat(self, site: Site) -> None:
        while True:
            await asyncio.sleep(1)
            site.report(heartbeat={})

    async def running(self, wanted: JobSpec, request_id: str = "r") -> str:
        """A job whose one task runs on the first site; the id of its allocation."""
        job = await self.services.admission.create("acme", request_id, wanted)
        await asyncio.sleep(MOMENT_S)
        [allocation] = self.job(job.id).allocations
        self.sites[allocation.site_id].status(
            allocation.id, RUNNING, start_time=CLOCK.now(), endpoints=[ANSWERS]
        )
        await asyncio.sleep(MOMENT_S)
        return allocation.id

    def job(self, some_id: str) -> Job:
        """A job by its id, or by that of an allocation."""
        return self.services.admission.get("acme", some_id.split(".")[0])

    def states(self, some_id: str) -> dict[str, int]:
        """The state of each allocation of a job, by site."""
        return {a.site_id: a.state for a in self.job(some_id).allocations}

    async def explained(self, some_id: str) -> str:
        _, told = await self.services.admission.explain("acme", some_id.split(".")[0])
        return "\n".join(told)
