"""A site of a simulation: the real agent down to its runners, which keep time and outlive it."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mumian.agent.v1 import agent_pb2 as pb
from mumian.api.v1 import fleet_pb2
from mumian_agent.adapters.grpc.coordinator_stream import Outbox
from mumian_agent.agent.allocations import Allocations
from mumian_agent.agent.site_agent import SiteAgent
from mumian_agent.runtime.contact import Contact
from mumian_agent.runtime.identity import Identity
from mumian_agent.runtime.journal import Entry, Journal
from mumian_orchestrator.adapters.memory.virtual_time import VirtualClock

from tests.agent.bundles import folders_of
from tests.agent.one_node import accounts, one_node
from tests.oracle.history import History
from tests.oracle.timed_runner import Node, TimedRunners
from tests.sim.coordinator import Coordinator, Stream
from tests.sim.processes import Process

CPU_MILLI = 4000
_WELCOME_WITHIN_S = 10.0
_BACKOFF_S = (0.1, 1.0)
_BEAT_S = 1.0
# An agent that is refused for good ends, and an operator looks after it.
_OPERATOR_AFTER_S = 5.0


class Site:
    """One site of one node; its agent can be killed, its node can go down."""

    def __init__(
        self,
        site_id: str,
        number: int,
        folder: Path,
        coordinators: Sequence[Coordinator],
        history: History,
        chance: random.Random,
    ) -> None:
        self.id, self._number, self._folder, self._history = site_id, number, folder, history
        self._coordinators, self._random = coordinators, chance
        self.clock = VirtualClock()
        self._machine = Process(f"{site_id}/n1")
        self.node = Node(f"{site_id}/n1", history, self.clock.now, self._machine.start)
        self._runners = TimedRunners(self.node)
        self._process = Process(f"{site_id} agent")
        self._process.kill()
        self._identity: Identity | None = None
        self._stream: Stream | None = None
        folder.mkdir()

    def start(self) -> None:
        """Start the agent, if it does not run."""
        if not self._process.is_alive:
            self._process = Process(f"{self.id} agent")
            self._process.live(self._live(), lambda why: self._history.add("defect", why=why))

    def kill(self) -> None:
        """kill -9 of the agent: what it started goes on."""
        self._process.kill()
        if self._identity is not None:
            self._identity.release()
        if self._stream is not None:
            self._stream.agent_gone()

    def go_down(self) -> None:
        """The node loses its power."""
        self.kill()
        self._history.add("went down", site=self.id)
        self._runners.lose_all()

    def untold(self) -> list[str]:
        """The allocations of whose end the coordinator has not confirmed to know."""
        return [str(status.allocation_id) for status in self._allocations.statuses()]

    async def _live(self) -> None:
        identity, outbox = Identity(self._folder), Outbox()
        self._identity = identity
        contact = Contact(self._folder / "contact")
        nodes = one_node(self.id, stop_grace_s=1.0, core_active_power_mw=0, folder=self._folder)
        journal, folders = _Journal(self._folder), folders_of(self._folder)
        self._allocations = Allocations(
            *(journal, self._runners, outbox, nodes, accounts(), folders), clock=self.clock.now
        )
        self._allocations.adopt()
        nothing: Any = _Nothing()
        reports: Any = _Reports(self)
        agent = SiteAgent(identity, self._allocations, nothing, reports, nothing, contact, lambda: None)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._beat(outbox))
            group.create_task(self._stay_connected(agent, identity.agent_epoch, outbox))

    async def _beat(self, outbox: Outbox) -> None:
        loop = asyncio.get_running_loop()
        while True:
            beat = pb.Heartbeat(agent_time=self.clock.now(), sent_ns=int(loop.time() * 1e9))
            outbox.put("heartbeat", pb.AgentReport(heartbeat=beat))
            await asyncio.sleep(_BEAT_S)

    async def _stay_connected(self, agent: SiteAgent, agent_epoch: int, outbox: Outbox) -> None:
        """As `CoordinatorStream` does."""
        coordinators = deque(self._coordinators)
        while True:
            stream = coordinators[0].connect(self.id)
            if stream is not None:
                self._stream = stream
                outbox.open()
                writer = asyncio.create_task(_write(stream, agent.hello(), agent_epoch, outbox))
                try:
                    await _read(stream, agent)
                finally:
                    writer.cancel()
                    stream.agent_gone()
                    await outbox.close()
                    agent.disconnected()
                refused = stream.refused
                if refused is not None:
                    self._history.add("refused", site=self.id, why=str(refused))
                    await asyncio.sleep(_OPERATOR_AFTER_S)
            coordinators.rotate(-1)
            await asyncio.sleep(self._random.uniform(*_BACKOFF_S))

    def hello(self) -> pb.AgentReport:
        """How each stream begins."""
        site = fleet_pb2.Site(id=self.id, operator_id="op", tier=fleet_pb2.TIER_EDGE, jurisdiction="CN-GD-GZ")
        site.pue.average_permille = site.pue.marginal_permille = 1250
        site.prices.cpu_core_hour_microcny = 1000 * (self._number + 1)
        node = fleet_pb2.Node(
            id=self.node.id,
            site_id=self.id,
            arch="x86_64",
            health=fleet_pb2.HEALTH_READY,
            cpu_milli=CPU_MILLI,
            memory_mib=1_000_000,
        )
        hello = pb.Hello(
            site=site, agent_time=self.clock.now(), allocations=self._allocations.statuses(), nodes=[node]
        )
        return pb.AgentReport(hello=hello)


class _Journal(Journal):
    """The real one, without what the file system has to say of the order."""

    def load(self) -> list[Entry]:
        return sorted(super().load(), key=lambda entry: entry.key)


class _Reports:
    """What the site says of itself."""

    def __init__(self, site: Site) -> None:
        self.hello = site.hello

    def set_heartbeat_interval(self, interval_ms: int) -> None:
        """It beats as it does."""


class _Nothing:
    """Neither logs nor probes."""

    def stop_all(self) -> None:
        pass

    def set_targets(self, targets: object) -> None:
        pass


async def _read(stream: Stream, agent: SiteAgent) -> None:
    commands = stream.commands.messages()
    try:
        async with asyncio.timeout(_WELCOME_WITHIN_S):
            first = await anext(commands, None)
    except TimeoutError:
        return
    if first is None:
        return
    agent.obey(first)
    async for command in commands:
        agent.obey(command)


async def _write(stream: Stream, hello: pb.AgentReport, agent_epoch: int, outbox: Outbox) -> None:
    sequence, report = 1, hello
    while True:
        report.agent_epoch, report.sequence = agent_epoch, sequence
        stream.reports.put(report)
        sequence += 1
        report = await outbox.next()
