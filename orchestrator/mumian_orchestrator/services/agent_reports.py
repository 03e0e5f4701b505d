"""What agents report, handed to whom it concerns."""

from __future__ import annotations

from mumian.agent.v1.agent_pb2 import AgentReport, Hello

from mumian_orchestrator.services.agent_sessions import AgentSessions, Session
from mumian_orchestrator.services.fleet import Fleet
from mumian_orchestrator.services.reconciler import Reconciler
from mumian_orchestrator.services.scheduler import Scheduler


class AgentReports:
    """One method for each report of the stream that needs more than noting that the site is alive."""

    def __init__(
        self, fleet: Fleet, sessions: AgentSessions, reconciler: Reconciler, scheduler: Scheduler
    ) -> None:
        self._fleet, self._sessions = fleet, sessions
        self._reconciler, self._scheduler = reconciler, scheduler

    def hello(self, session: Session, hello: Hello) -> None:
        """A site has joined: take over what it runs, and let those who wait try it."""
        for status in hello.allocations:
            self._reconciler.status(session.site_id, status)
        self._scheduler.evaluate_waiting()

    def take(self, session: Session, report: AgentReport) -> None:
        """One report that is newer than all before it."""
        site_id = session.site_id
        changed = self._fleet.seen(site_id)
        match report.WhichOneof("report"):
            case "nodes":
                self._fleet.set_nodes(site_id, report.nodes.nodes)
                changed = True
            case "links":
                # A site speaks for links that end at itself, for no others.
                own = [link for link in report.links.links if link.to_site_id == site_id]
                self._fleet.set_links(own)
                changed = bool(own)
            case "power":
                changed |= self._fleet.set_power(site_id, report.power)
            case "allocation_status":
                self._reconciler.status(site_id, report.allocation_status)
            case "log_chunk":
                self._sessions.log_chunk(session, report.log_chunk)
            case _:
                pass  # a heartbeat says no more than that the site is alive
        if changed:
            self._scheduler.evaluate_waiting()
