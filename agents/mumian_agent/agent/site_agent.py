"""The agent of one site: obeys the coordinator's commands, whatever becomes of the connection."""

from __future__ import annotations

import logging
from collections.abc import Callable

from mumian.agent.v1.agent_pb2 import AgentReport, CoordinatorCommand

from mumian_agent.agent.allocations import Allocations
from mumian_agent.agent.log_reads import LogReads
from mumian_agent.agent.site_reports import SiteReports
from mumian_agent.domain.allocation import AllocationKey
from mumian_agent.runtime.contact import Contact, now_ns
from mumian_agent.runtime.identity import Identity
from mumian_agent.runtime.probing.prober import Prober

log = logging.getLogger(__name__)


class SiteAgent:
    """One method for each command of the stream."""

    def __init__(
        self,
        identity: Identity,
        allocations: Allocations,
        log_reads: LogReads,
        site_reports: SiteReports,
        prober: Prober,
        contact: Contact,
        on_welcome: Callable[[], None],
    ) -> None:
        self._identity, self._allocations, self._log_reads = identity, allocations, log_reads
        self._site_reports, self._prober, self._on_welcome = site_reports, prober, on_welcome
        self._contact = contact
        self._hello_ns = 0

    def hello(self) -> AgentReport:
        """How every stream begins."""
        self._hello_ns = now_ns()
        return self._site_reports.hello()

    def disconnected(self) -> None:
        """The stream has ended. What runs goes on; only the readers of logs have gone."""
        self._log_reads.stop_all()

    def obey(self, command: CoordinatorCommand) -> None:
        """Carry a command out; one of a leader that has been superseded is refused."""
        name = command.WhichOneof("command")
        if not self._identity.obeys(command.leader_term):
            log.warning(
                "refused %s of term %d: a leader of term %d has been heard",
                name,
                command.leader_term,
                self._identity.leader_term,
            )
            return
        match name:
            case "welcome":
                self._contact.heard(self._hello_ns)
                self._site_reports.set_heartbeat_interval(command.welcome.heartbeat_interval_ms)
                self._allocations.welcome(command.welcome.allocations)
                self._on_welcome()
            case "run":
                self._allocations.run(command.run)
            case "stop":
                self._allocations.stop(AllocationKey(command.stop.allocation_id, command.stop.attempt))
            case "probe_targets":
                self._prober.set_targets({each.id: each.address for each in command.probe_targets.targets})
            case "read_logs":
                self._log_reads.start(command.read_logs)
            case "read_output":
                self._log_reads.start_output(command.read_output)
            case "stop_reading_logs":
                self._log_reads.stop(command.stop_reading_logs.read_id)
            case "heartbeat_seen":
                self._contact.heard(command.heartbeat_seen.sent_ns)
            case "extend_funding":
                extend = command.extend_funding
                key = AllocationKey(extend.allocation_id, extend.attempt)
                self._allocations.extend_funding(key, extend.funded_ms)
            case "status_stored":
                self._allocations.stored(command.status_stored)
            case _:
                log.warning("an unknown command was ignored; is the coordinator newer than this agent?")
