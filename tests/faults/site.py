"""A site whose agent is the real one down to its runners: those keep time instead of running processes."""

from __future__ import annotations

import asyncio
from pathlib import Path

from mumian.agent.v1 import agent_pb2 as pb
from mumian.api.v1 import fleet_pb2
from mumian_agent.adapters.grpc.coordinator_stream import CoordinatorStream, Outbox
from mumian_agent.agent.allocations import Allocations, now
from mumian_agent.domain.allocation import AllocationKey
from mumian_agent.runtime.certificates import Certificates
from mumian_agent.runtime.contact import now_ns
from mumian_agent.runtime.identity import Identity
from mumian_agent.runtime.journal import Journal

from tests.agent.bundles import folders_of
from tests.agent.one_node import accounts, one_node
from tests.oracle.history import History
from tests.oracle.timed_runner import Node, TimedRunners

CPU_MILLI = 8000
_BEAT_S = 0.5


class Site:
    """One site of one node. It knows all coordinators, and goes to the next when its stream breaks."""

    def __init__(self, site_id: str, coordinators: list[str], folder: Path, history: History) -> None:
        self._site_id, self._history = site_id, history
        self._identity, self._outbox = Identity(folder), Outbox()
        epoch, certificates = self._identity.agent_epoch, Certificates(folder)
        self._stream = CoordinatorStream(coordinators, epoch, self._outbox, certificates)
        nodes = one_node(site_id, stop_grace_s=1.0, core_active_power_mw=0, folder=folder)
        runners = TimedRunners(Node(f"{site_id}/n1", history))
        self._allocations = Allocations(
            Journal(folder), runners, self._outbox, nodes, accounts(), folders_of(folder)
        )
        self.welcomed = asyncio.Event()

    async def run(self) -> None:
        """Obey and report, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._stream.run(self))
            group.create_task(self._beat())

    def hello(self) -> pb.AgentReport:
        site = fleet_pb2.Site(
            id=self._site_id,
            operator_id="op",
            tier=fleet_pb2.TIER_EDGE,
            jurisdiction="CN-GD-GZ",
            agent_epoch=self._identity.agent_epoch,
        )
        site.pue.average_permille = site.pue.marginal_permille = 1250
        node = fleet_pb2.Node(
            id=f"{self._site_id}/n1",
            site_id=self._site_id,
            arch="x86_64",
            health=fleet_pb2.HEALTH_READY,
            cpu_milli=CPU_MILLI,
            memory_mib=1_000_000,
        )
        hello = pb.Hello(
            site=site,
            agent_time=now(),
            reflector="127.0.0.1:9100",
            allocations=self._allocations.statuses(),
            nodes=[node],
        )
        return pb.AgentReport(hello=hello)

    def disconnected(self) -> None:
        self._history.add("disconnected", site=self._site_id)

    def obey(self, command: pb.CoordinatorCommand) -> None:
        name = command.WhichOneof("command")
        if not self._identity.obeys(command.leader_term):
            self._history.add("refused", site=self._site_id, command=name, term=command.leader_term)
            return
        match name:
            case "welcome":
                self._history.add("welcomed", site=self._site_id, term=command.leader_term)
                self._allocations.welcome(command.welcome.allocations)
                self.welcomed.set()
            case "run":
                self._allocations.run(command.run)
            case "stop":
                self._allocations.stop(AllocationKey(command.stop.allocation_id, command.stop.attempt))
            case "status_stored":
                self._allocations.stored(command.status_stored)

    async def _beat(self) -> None:
        while True:
            beat = pb.Heartbeat(agent_time=now(), sent_ns=now_ns())
            self._outbox.put("heartbeat", pb.AgentReport(heartbeat=beat))
            await asyncio.sleep(_BEAT_S)
