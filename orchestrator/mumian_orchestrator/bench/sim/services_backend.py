"""The twin's full mode: the coordinator's real services on a store in memory, with simulated agents.

Runs inside `adapters.memory.virtual_time`, whose loop is the clock of every service.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from mumian.agent.v1 import agent_pb2
from mumian.api.v1 import fleet_pb2, job_pb2

from mumian_orchestrator.adapters.core.engine import CoreEngine
from mumian_orchestrator.adapters.memory.key_value import MemoryCluster, MemoryKeyValue
from mumian_orchestrator.adapters.memory.virtual_time import VirtualClock
from mumian_orchestrator.bench.sim import world
from mumian_orchestrator.bench.sim.arrivals import Arrival
from mumian_orchestrator.bench.sim.backend import Placed, Stage, sleep_until
from mumian_orchestrator.bench.sim.links import Links, link_messages
from mumian_orchestrator.bench.sim.moves import search_limits
from mumian_orchestrator.bench.sim.policies import Rearranging
from mumian_orchestrator.bench.sim.scenario import Scenario
from mumian_orchestrator.main.composition import Services, compose
from mumian_orchestrator.main.config import Config
from mumian_orchestrator.services.agent_sessions import Session
from mumian_orchestrator.services.leadership import campaign
from mumian_orchestrator.services.store.fenced import FencedStore

_CLOCK = VirtualClock()
_SETTLED_S = 0.05  # virtual; nothing in the services waits so long but the silence check


class _Agent:
    """One site's agent: it keeps what it is told to run and to stop until the backend looks."""

    commands_waiting = 0

    def __init__(self, services: Services, epoch: int) -> None:
        self._services, self.epoch, self._sequence = services, epoch, 0
        self._session: Session | None = None
        self.started: list[job_pb2.Allocation] = []
        self.stopped: list[str] = []
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
        if command.HasField("stop") and not self.is_lost:
            self.stopped.append(command.stop.allocation_id)

    def told(self) -> tuple[list[job_pb2.Allocation], list[str]]:
        """What it is to run and to stop since it was asked last."""
        told = self.started, self.stopped
        self.started, self.stopped = [], []
        return told

    def close(self, reason: str) -> None:
        """The coordinator ends the stream, which it has no reason to do while the site is there."""
        if not self.is_lost:
            raise RuntimeError(f"the coordinator closed a simulated agent's stream: {reason}")


class ServicesBackend:
    """Each task goes through admission, scheduler, plan applier, agent stream and reconciler."""

    stage: Stage

    def __init__(self, scenario: Scenario, specs: world.Specs, services: Services) -> None:
        self._scenario, self._specs, self._services = scenario, specs, services
        self._agents: dict[str, _Agent] = {}
        self._allocations: dict[str, job_pb2.Allocation] = {}  # by task
        self._coming: dict[str, job_pb2.Allocation] = {}  # the copies that are to take over, by task
        self._placed: list[Placed] = []  # since the last decision
        self._jobs: dict[str, Arrival] = {}  # the first task of each job, by the coordinator's id
        self.decision_s = 0.0

    async def turn(self, now_s: int, up: Sequence[str], ended: Sequence[str]) -> None:
        """Heartbeats, and what has come up and ended since the last."""
        await sleep_until(now_s)
        for agent in self._agents.values():
            agent.report(agent_pb2.AgentReport(heartbeat=agent_pb2.Heartbeat()))
        for task_id in up:
            self._up(task_id)
        for task_id in ended:
            self._report(self._allocations.pop(task_id), job_pb2.ALLOCATION_STATE_SUCCEEDED)
            self._coming.pop(task_id, None)
        await self._settle()

    async def change(self, now_s: int, sites: Sequence[fleet_pb2.Site], links: Links) -> None:
        """The agents join, and later report their meters and links."""
        await sleep_until(now_s)
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
    ) -> list[Placed]:
        """Report, submit, and let the services settle."""
        await sleep_until(now_s)
        start = time.perf_counter()
        for task_id in lost:
            del self._allocations[task_id]  # nobody is there to tell the coordinator
            if task_id in self._coming:
                self._allocations[task_id] = self._coming.pop(task_id)
        for task in arrived:
            if task.group or task.task_index:
                continue  # its job is there
            tenant = self._scenario.jobs[task.job_class].tenant
            job = await self._services.admission.create(tenant, task.job_id, self._specs.of(task))
            self._jobs[job.id] = task
        await self._settle()
        placed, self._placed = self._placed, []
        self.decision_s += time.perf_counter() - start
        return placed

    async def rearrange(self, now_s: int) -> None:
        """Drift and re-optimisation look as often as the simulation does."""
        # At the same point of every tick, however long the services took to settle.
        await sleep_until(now_s + self._scenario.tick_s / 2)
        start = time.perf_counter()
        await self._services.drift.check()
        await self._services.reoptimisation.check()
        await self._settle()
        self.decision_s += time.perf_counter() - start

    async def _settle(self) -> None:
        """Do what the agents are told, until they are told nothing more."""
        while True:
            await asyncio.sleep(_SETTLED_S)
            told = [(agent, *agent.told()) for agent in self._agents.values()]
            for agent, _, stopped in told:
                for allocation_id in stopped:
                    self._stop(agent, allocation_id)
            for _, started, _ in told:
                for allocation in started:
                    self._start(allocation)
            if not any(started or stopped for _, started, stopped in told):
                return

    def _start(self, allocation: job_pb2.Allocation) -> None:
        first = self._jobs[allocation.job_id]
        number = world.group_number(self._specs.of(first), allocation.task_group)
        task = first._replace(group=number, task_index=allocation.task_index)
        devices = tuple((share.device_index, share.milli) for share in allocation.devices)
        placed = Placed(task.id, allocation.site_id, allocation.node_id, devices)
        if allocation.takes_over_from:
            self._coming[task.id] = allocation
            if self.stage.begin_move(placed):
                self._up(task.id)
            return
        self._allocations[task.id] = allocation
        self._placed.append(placed)
        if not self._scenario.jobs[task.job_class].start_s:
            self._up(task.id)

    def _up(self, task_id: str) -> None:
        if task_id in self._coming:
            self._allocations[task_id] = self._coming.pop(task_id)
        self._report(self._allocations[task_id], job_pb2.ALLOCATION_STATE_RUNNING)

    def _stop(self, agent: _Agent, allocation_id: str) -> None:
        agent.status(allocation_id, job_pb2.ALLOCATION_STATE_CANCELLED)
        given_up = next((i for i, coming in self._coming.items() if coming.id == allocation_id), None)
        if given_up is not None:
            del self._coming[given_up]
            self.stage.give_up_move(given_up)

    def _report(self, allocation: job_pb2.Allocation, state: job_pb2.AllocationState.ValueType) -> None:
        self._agents[allocation.site_id].status(allocation.id, state)


@asynccontextmanager
async def services_backend(
    scenario: Scenario, specs: world.Specs, rearranging: Rearranging
) -> AsyncIterator[ServicesBackend]:
    """A leader at work on an empty store."""
    config = Config(
        carbon_kg_microcny=scenario.carbon_kg_microcny,
        reoptimize_interval_s=rearranging.every_s,
        unreachable_after_ms=3000 * scenario.tick_s,
        zones=tuple(fleet_pb2.Zone(id=zone.id) for zone in scenario.zones),
    )
    kv = MemoryKeyValue(MemoryCluster())
    term = await campaign(kv, f"{config.key_prefix}leader", "twin", config.lease_ttl_s)
    store = FencedStore(kv, config.key_prefix, term)
    services = compose(config, term.number, store, CoreEngine(config.policy), _CLOCK)
    services.load((await store.load()).entries)
    services.reoptimisation.limits = search_limits(rearranging)
    working = asyncio.create_task(services.run(looks_for_moves=False))
    try:
        yield ServicesBackend(scenario, specs, services)
    finally:
        working.cancel()
        await asyncio.wait({working})
        await term.resign()
