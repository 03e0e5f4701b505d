"""What agents report, handed to whom it concerns."""

from __future__ import annotations

from collections.abc import Iterable

from mumian.agent.v1.agent_pb2 import AgentReport, Hello
from mumian.api.v1.fleet_pb2 import Node

from mumian_orchestrator.services.agent_sessions import AgentSessions, Session
from mumian_orchestrator.services.disconnections import Disconnections
from mumian_orchestrator.services.fleet import Fleet
from mumian_orchestrator.services.link_estimates import LinkEstimates
from mumian_orchestrator.services.reconciler import Reconciler
from mumian_orchestrator.services.scheduler import Scheduler


class AgentReports:
    """One method for each report of the stream that needs more than noting that the site is alive."""

    def __init__(
        self,
        fleet: Fleet,
        sessions: AgentSessions,
        disconnections: Disconnections,
        reconciler: Reconciler,
        scheduler: Scheduler,
        estimates: LinkEstimates,
    ) -> None:
        self._estimates = estimates
        self._fleet, self._sessions, self._disconnections = fleet, sessions, disconnections
        self._reconciler, self._scheduler = reconciler, scheduler

    def hello(self, session: Session, hello: Hello) -> None:
        """A site has joined: take over what it runs, and let those who wait try it."""
        self._disconnections.returned(session.site_id, hello.allocations)
        self._reconciler.statuses(session.site_id, hello.allocations)
        self._sessions.welcome(session)
        self._scheduler.evaluate_waiting()

    def take(self, session: Session, report: AgentReport) -> None:
        """One report that is newer than all before it."""
        site_id = session.site_id
        if not self._fleet.seen(site_id):
            session.link.close("it was silent for too long, and has to say hello again")
            self._sessions.close(session)
            return
        changed = False
        match report.WhichOneof("report"):
            case "nodes":
                self._fleet.set_nodes(site_id, _own(site_id, report.nodes.nodes))
                changed = True
            case "nodes_change":
                change = report.nodes_change
                self._fleet.change_nodes(site_id, _own(site_id, change.nodes), change.removed_node_ids)
                changed = True
            case "links":
                # A site speaks for links that end at itself, for no others.
                own = [link for link in report.links.links if link.to_site_id == site_id]
                self._fleet.set_links(own)
                self._estimates.observe(own)
                changed = bool(own)
            case "power":
                changed |= self._fleet.set_power(site_id, report.power)
            case "allocation_status":
                self._reconciler.status(site_id, report.allocation_status)
            case "log_chunk":
                self._sessions.log_chunk(session, report.log_chunk)
            case "heartbeat":
                self._sessions.heartbeat(session, report.heartbeat)
            case _:
                pass
        if changed:
            self._scheduler.evaluate_waiting()


def _own(site_id: str, nodes: Iterable[Node]) -> list[Node]:
    """A site speaks for nodes of its own, for no others."""
    return [node for node in nodes if node.site_id == site_id and node.id.startswith(f"{site_id}/")]
