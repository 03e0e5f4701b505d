"""The twin's full mode: the coordinator's real services on a store in memory, with simulated agents.

Runs inside `adapters.memory.virtual_time`, whose loop is the clock of every service.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from mumian.agent.v1 import agent_pb2
from mumian.api.v1 import fleet_pb2, job_pb2

from mumian_orchestrator.adapters.core.engine import CoreEngine
from mumian_orchestrator.adapters.memory.key_value import MemoryCluster, MemoryKeyValue
from mumian_orchestrator.adapters.memory.virtual_time import VirtualClock
from mumian_orchestrator.bench.sim import world
from mumian_orchestrator.bench.sim.arrivals import Arrival
from mumian_orchestrator.bench.sim.core_backend import Placed, group_number
from mumian_orchestrator.bench.sim.links import Links, link_messages
from mumian_orchestrator.bench.sim.scenario import Scenario
from mumian_orchestrator.main.composition import Services, compose
from mumian_orchestrator.main.config import Config
from mumian_orchestrator.services.agent_sessions import Session
from mumian_orchestrator.services.leadership import campaign
from mumian_orchestrator.services.store.fenced import FencedStore

_CLOCK = VirtualClock()
_SETTLED_S = 0.05  # virtual; nothing in the services waits so long but the silence check


class _Agent:
    """One site's agent: starts at once what it is told to run, and ends it when the simulation says so."""

    commands_waiting = 0

    def __init__(self, services: Services, epoch: int) -> None:
        self._services, self.epoch, self._sequence = services, epoch, 0
        self._session: Session | None = None
        self.started: list[job_pb2.Allocation] = []
        self.is_lost = False
        """Its site has no power: it says nothing, and what it is told is lost."""

    async def join(self, site: fleet_pb2.Site, nodes: Sequence[fleet_pb2.Node]) -> None:
        """Say hello."""
        hello = agent_pb2.Hello(site=site, agent_time=_CLOCK.now(), nodes=nodes)
        self._session = await self._services.sessions.open(hello, self.epoch, self)
        self._services.reports.hello(self._session, hello)

    def report(self, report: agent_pb2.AgentReport) -> None:
        """The next report of the stream."""
        assert self._session is not None
        if self.is_lost:
            return
        self._sequence += 1
        report.agent_epoch, report.sequence = self.epoch, self._sequence
        if self._services.sessions.is_current(self._session, report):
            self._services.reports.take(self._session, report)

    def status(self, allocation_id: str, state: job_pb2.AllocationState.ValueType) -> None:
        """Report on an allocation."""
        status = agent_pb2.AllocationStatus(allocation_id=allocation_id, attempt=1, state=state)
        self.report(agent_pb2.AgentReport(allocation_status=status))

    def send(self, command: agent_pb2.CoordinatorCommand) -> None:
        """Take a command."""
        if command.HasField("run") and not self.is_lost:
            copy = job_pb2.Allocation()
            copy.CopyFrom(command.run.allocation)
            self.started.append(copy)

    def close(self, reason: str) -> None:
        """The coordinator ends the stream, which it has no reason to do while the site is there."""
        if not self.is_lost:
            raise RuntimeError(f"the coordinator closed a simulated agent's stream: {reason}")


class ServicesBackend:
    """Each task goes through admission, scheduler, plan applier, agent stream and reconciler."""

    def __init__(self, scenario: Scenario, specs: world.Specs, services: Services) -> None:
        self._scenario, self._specs, self._services = scenario, specs, services
        self._agents: dict[str, _Agent] = {}
        self._allocations: dict[str, job_pb2.Allocation] = {}
        self._jobs: dict[str, Arrival] = {}  # the first task of each job, by the coordinator's id
        self.decision_s = 0.0

    async def end(self, now_s: int, ended: Sequence[str]) -> None:
        """Heartbeats, and what has ended since the last."""
        await _sleep_until(now_s)
        for agent in self._agents.values():
            agent.report(agent_pb2.AgentReport(heartbeat=agent_pb2.Heartbeat()))
        for task_id in ended:
            allocation = self._allocations.pop(task_id)
            self._agents[allocation.site_id].status(allocation.id, job_pb2.ALLOCATION_STATE_SUCCEEDED)
        await asyncio.sleep(_SETTLED_S)

    async def change(self, now_s: int, sites: Sequence[fleet_pb2.Site], links: Links) -> None:
        """The agents join, and later report their meters and links."""
        await _sleep_until(now_s)
        for site, declared in zip(sites, self._scenario.sites, strict=True):
            agent = self._agents.get(site.id)
            if site.health != fleet_pb2.HEALTH_READY:
                assert agent is not None
                agent.is_lost = True
                continue
            if agent is None or agent.is_lost:
                # After a loss of power it comes back as a new agent, on which nothing runs.
                agent = self._agents[site.id] = _Agent(self._services, agent.epoch + 1 if agent else 1)
                await agent.join(site, world.node_messages(declared))
            else:
                agent.report(agent_pb2.AgentReport(power=agent_pb2.PowerReport(pue=site.pue)))
            messages = link_messages(
                {pair: state for pair, state in links.items() if pair[1] == site.id},
                self._scenario.rtt_p99_factor,
            )
            if messages:
                agent.report(agent_pb2.AgentReport(links=agent_pb2.LinksReport(links=messages)))

    async def decide(
        self,
        now_s: int,
        lost: Sequence[str],
        waiting: Sequence[Arrival],  # noqa: ARG002 - the services know what waits
        arrived: Sequence[Arrival],
        movable: Callable[[], Mapping[str, Arrival]],  # noqa: ARG002 - batch tasks stay
    ) -> list[Placed]:
        """Report, submit, and let the services settle."""
        await _sleep_until(now_s)
        start = time.perf_counter()
        for task_id in lost:
            del self._allocations[task_id]  # nobody is there to tell the coordinator
        for task in arrived:
            if task.group or task.task_index:
                continue  # its job is there
            tenant = self._scenario.jobs[task.job_class].tenant
            job = await self._services.admission.create(tenant, task.job_id, self._specs.of(task))
            self._jobs[job.id] = task
        await asyncio.sleep(_SETTLED_S)
        placed = [self._start(a) for agent in self._agents.values() for a in self._taken(agent)]
        self.decision_s += time.perf_counter() - start
        return placed

    def _taken(self, agent: _Agent) -> list[job_pb2.Allocation]:
        started, agent.started = agent.started, []
        return started

    def _start(self, allocation: job_pb2.Allocation) -> Placed:
        first = self._jobs[allocation.job_id]
        number = group_number(self._specs.of(first), allocation.task_group)
        task = first._replace(group=number, task_index=allocation.task_index)
        self._allocations[task.id] = allocation
        self._agents[allocation.site_id].status(allocation.id, job_pb2.ALLOCATION_STATE_RUNNING)
        devices = tuple((share.device_index, share.milli) for share in allocation.devices)
        return Placed(task.id, allocation.site_id, allocation.node_id, devices)


@asynccontextmanager
async def services_backend(scenario: Scenario, specs: world.Specs) -> AsyncIterator[ServicesBackend]:
    """A leader at work on an empty store."""
    config = Config(
        carbon_kg_microcny=scenario.carbon_kg_microcny,
        unreachable_after_ms=3000 * scenario.tick_s,
        zones=tuple(fleet_pb2.Zone(id=zone.id) for zone in scenario.zones),
    )
    kv = MemoryKeyValue(MemoryCluster())
    term = await campaign(kv, f"{config.key_prefix}leader", "twin", config.lease_ttl_s)
    store = FencedStore(kv, config.key_prefix, term)
    services = compose(config, term.number, store, CoreEngine(config.policy), _CLOCK)
    services.load((await store.load()).entries)
    working = asyncio.create_task(services.run())
    try:
        yield ServicesBackend(scenario, specs, services)
    finally:
        working.cancel()
        await asyncio.wait({working})
        await term.resign()


async def _sleep_until(now_s: int) -> None:
    await asyncio.sleep(max(0.0, now_s - _CLOCK.monotonic_s()))
