"""The coordinator's real services on a store in memory and in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from mumian.agent.v1.agent_pb2 import AgentReport, AllocationStatus, CoordinatorCommand, Heartbeat, Hello
from mumian.api.v1 import fleet_pb2, job_pb2
from mumian_orchestrator.adapters.core.engine import CoreEngine
from mumian_orchestrator.adapters.memory.key_value import MemoryCluster, MemoryKeyValue
from mumian_orchestrator.adapters.memory.virtual_time import VirtualClock
from mumian_orchestrator.domain.errors import RequestRefusedError
from mumian_orchestrator.main.composition import Services, compose
from mumian_orchestrator.main.config import Config
from mumian_orchestrator.ports.key_value import CompactedError, Put
from mumian_orchestrator.services.leadership import campaign
from mumian_orchestrator.services.store.fenced import FencedStore
from mumian_orchestrator.services.store.history import HISTORY_S

from tests.orchestrator.tenant import spec_of

CLOCK = VirtualClock()
DATA = f"{Config().key_prefix}data/"


@asynccontextmanager
async def leading(cluster: MemoryCluster) -> AsyncIterator[Services]:
    """A leader's services at work, for one term."""
    kv, config = MemoryKeyValue(cluster), Config()
    term = await campaign(kv, "/mumian/leader", "test", config.lease_ttl_s)
    store = FencedStore(kv, config.key_prefix, term)
    services = compose(config, term.number, store, CoreEngine(config.policy), CLOCK)
    services.load((await store.load()).entries)
    running = asyncio.create_task(services.run())
    try:
        yield services
    finally:
        running.cancel()
        await term.resign()


class Agent:
    """A site of one node that starts what it is told to start, and ends it after a virtual hour."""

    commands_waiting = 0

    def __init__(self, services: Services) -> None:
        self._services, self._sequence = services, 1
        self._ending: list[asyncio.TimerHandle] = []

    async def join(self) -> None:
        node = fleet_pb2.Node(id="gz/n1", site_id="gz", arch="x86_64", health=fleet_pb2.HEALTH_READY)
        node.cpu_milli, node.memory_mib = 4000, 8192
        site = fleet_pb2.Site(id="gz", operator_id="op", tier=fleet_pb2.TIER_EDGE, jurisdiction="CN-GD-GZ")
        site.pue.average_permille = site.pue.marginal_permille = 1250
        hello = Hello(site=site, agent_time=CLOCK.now(), nodes=[node])
        self._session = await self._services.sessions.open(hello, 1, self)
        self._services.reports.hello(self._session, hello)

    async def beat(self) -> None:
        while True:
            await asyncio.sleep(1)
            self._services.reports.take(self._session, AgentReport(heartbeat=Heartbeat()))

    def send(self, command: CoordinatorCommand) -> None:
        if command.HasField("run"):
            allocation_id = command.run.allocation.id
            loop = asyncio.get_running_loop()
            loop.call_soon(self._report, allocation_id, job_pb2.ALLOCATION_STATE_RUNNING)
            loop.call_later(3600, self._report, allocation_id, job_pb2.ALLOCATION_STATE_SUCCEEDED)

    def close(self, reason: str) -> None:
        pass

    def _report(self, allocation_id: str, state: job_pb2.AllocationState.ValueType) -> None:
        self._sequence += 1
        status = AllocationStatus(allocation_id=allocation_id, attempt=1, state=state)
        self._services.reports.take(self._session, AgentReport(allocation_status=status))


async def test_a_job_of_an_hour_runs_to_its_end_and_the_next_leader_knows_it() -> None:
    cluster = MemoryCluster()
    async with leading(cluster) as services:
        agent = Agent(services)
        await agent.join()
        beating = asyncio.create_task(agent.beat())
        begun_s = CLOCK.monotonic_s()
        job = await services.admission.create("acme", "request-1", spec_of())
        [*_, last] = [seen.state async for seen in services.admission.watch("acme", job.id)]
        assert last == job_pb2.JOB_STATE_SUCCEEDED
        took_s = round(CLOCK.monotonic_s() - begun_s, 6)  # a sum of many waits, each a float
        assert 3600 <= took_s < 3610
        beating.cancel()
    async with leading(cluster) as services:
        assert services.admission.get("acme", job.id).state == job_pb2.JOB_STATE_SUCCEEDED
        again = await services.admission.create("acme", "request-1", spec_of())
        assert again.id == job.id


async def test_a_silent_site_becomes_unreachable_when_the_virtual_time_has_passed() -> None:
    async with leading(MemoryCluster()) as services:
        await Agent(services).join()
        await asyncio.sleep(Config().unreachable_after_ms / 1000 - 1)
        assert services.fleet.sites()[0].health == fleet_pb2.HEALTH_READY
        await asyncio.sleep(2)
        assert services.fleet.sites()[0].health == fleet_pb2.HEALTH_UNREACHABLE


async def test_that_a_job_waits_is_shown_and_not_stored_and_the_next_leader_finds_it_again() -> None:
    cluster = MemoryCluster()
    async with leading(cluster) as services:
        created = await services.admission.create("acme", "request-1", spec_of())
        stored = cluster.revision
        await asyncio.sleep(1)
        job = services.admission.get("acme", created.id)
        assert job.explanations
        assert job.etag == "1"
        assert cluster.revision == stored, "nothing was written for a decision that places nothing"
        told = [explanation.summary for explanation in job.explanations]
    async with leading(cluster) as services:
        await asyncio.sleep(1)
        again = services.admission.get("acme", created.id)
        assert [explanation.summary for explanation in again.explanations] == told


async def test_the_leader_forgets_old_history_again_and_again() -> None:
    cluster = MemoryCluster()
    async with leading(cluster) as services:
        await services.admission.create("acme", "request-1", spec_of())
        created = cluster.revision
        assert cluster.history("/mumian/", created)
        await asyncio.sleep(HISTORY_S - 1)
        assert cluster.history("/mumian/", created)
        await asyncio.sleep(HISTORY_S + 1)
        await services.admission.create("acme", "request-2", spec_of())
        await asyncio.sleep(3 * HISTORY_S)
        with pytest.raises(CompactedError):
            cluster.history("/mumian/", created)
        assert len(services.admission.list("acme", [])) == 2


async def test_a_request_that_an_older_coordinator_stored_makes_no_second_job() -> None:
    """Jobs of before 2026-11-26 had what they are the only job of in a key of its own."""
    cluster = MemoryCluster()
    async with leading(cluster) as services:
        job = await services.admission.create("acme", "once", spec_of())
    digest = job.spec_sha256.hex()
    job.ClearField("request_id")
    job.ClearField("spec_sha256")
    older = {f"jobs/{job.id}": job.SerializeToString(), "requests/acme/once": f"{job.id} {digest}".encode()}
    puts = [Put(DATA + key, value) for key, value in older.items()]
    cluster.transact([], puts, [])
    async with leading(cluster) as services:
        again = await services.admission.create("acme", "once", spec_of())
        assert again.id == job.id
        with pytest.raises(RequestRefusedError, match="was used for job"):
            await services.admission.create("acme", "once", spec_of("other"))
        assert [event.sequence for event in await services.admission.events("acme", job.id)] == [1]


async def test_a_job_never_takes_the_id_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter(["00000000", "00000000", "00000001"])
    async with leading(MemoryCluster()) as services:
        monkeypatch.setattr(
            "mumian_orchestrator.services.submissions.secrets.token_hex", lambda _: next(drawn)
        )
        first = await services.admission.create("acme", "first", spec_of())
        second = await services.admission.create("rival", "second", spec_of())
        assert (first.id, second.id) == ("work-00000000", "work-00000001")
        assert services.admission.get("acme", first.id).tenant_id == "acme"
