"""An agent without a process: it collects its commands and reports what the test says."""

from __future__ import annotations

from typing import Any

from mumian.agent.v1 import agent_pb2 as pb
from mumian.api.v1 import fleet_pb2, job_pb2
from mumian_orchestrator.adapters.memory.virtual_time import VirtualClock
from mumian_orchestrator.main.composition import Services

CLOCK = VirtualClock()


def status_of(
    allocation_id: str, state: job_pb2.AllocationState.ValueType, **more: Any
) -> pb.AllocationStatus:
    """A report on an allocation's first attempt."""
    return pb.AllocationStatus(allocation_id=allocation_id, attempt=1, state=state, **more)


class Site:
    """One site of one node, as the coordinator sees it."""

    def __init__(self, services: Services, site_id: str = "gz", cpu_milli: int = 4000) -> None:
        self.services, self.id = services, site_id
        self.site = fleet_pb2.Site(id=site_id, operator_id="op", jurisdiction="CN-GD-GZ")
        self.site.pue.average_permille = self.site.pue.marginal_permille = 1250
        self.node = fleet_pb2.Node(
            id=f"{site_id}/n1",
            site_id=site_id,
            arch="x86_64",
            health=fleet_pb2.HEALTH_READY,
            cpu_milli=cpu_milli,
            memory_mib=1_000_000,
        )
        self.commands: list[pb.CoordinatorCommand] = []
        self.sent: list[pb.AgentReport] = []  # of this stream
        self.closed = ""  # why the coordinator has ended the stream

    # The coordinator's side.

    commands_waiting = 0

    def send(self, command: pb.CoordinatorCommand) -> None:
        copy = pb.CoordinatorCommand()
        copy.CopyFrom(command)
        self.commands.append(copy)

    def close(self, reason: str) -> None:
        self.closed = reason

    # The agent's side.

    async def connect(self, *running: pb.AllocationStatus) -> None:
        """Say hello, with what runs here."""
        hello = pb.Hello(site=self.site, agent_time=CLOCK.now(), allocations=running, nodes=[self.node])
        self.sent, self.closed = [], ""
        self._session = await self.services.sessions.open(hello, 1, self)
        self.services.reports.hello(self._session, hello)

    def disconnect(self) -> None:
        """The stream breaks."""
        self.services.sessions.close(self._session)

    def report(self, **report: Any) -> None:
        """The next report of the stream arrives."""
        self.deliver(self.next_report(**report))

    def next_report(self, **report: Any) -> pb.AgentReport:
        """The next report of the stream, under way."""
        made = pb.AgentReport(agent_epoch=1, sequence=len(self.sent) + 1, **report)
        self.sent.append(made)
        return made

    def deliver(self, report: pb.AgentReport) -> None:
        """A report arrives, maybe again or late."""
        if self.services.sessions.is_current(self._session, report):
            self.services.reports.take(self._session, report)

    def status(self, allocation_id: str, state: job_pb2.AllocationState.ValueType, **more: Any) -> None:
        """Report on an allocation."""
        self.report(allocation_status=status_of(allocation_id, state, **more))

    def runs(self) -> list[str]:
        """The allocations that it was told to run, in order."""
        return [c.run.allocation.id for c in self.commands if c.HasField("run")]

    def stops(self) -> list[str]:
        """The allocations that it was told to stop, in order."""
        return [c.stop.allocation_id for c in self.commands if c.HasField("stop")]

    def welcomed(self) -> list[str]:
        """What its newest welcome lists."""
        welcome = [c.welcome for c in self.commands if c.HasField("welcome")][-1]
        return [run.allocation.id for run in welcome.allocations]
