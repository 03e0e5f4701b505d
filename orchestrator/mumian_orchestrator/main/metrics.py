"""What a coordinator tells Prometheus of itself."""

from __future__ import annotations

from collections.abc import Sequence

from mumian_orchestrator.adapters.telemetry.exporter import Counter, Gauge
from mumian_orchestrator.main.composition import Services
from mumian_orchestrator.services.loop_watch import LoopWatch

Figures = Sequence[Gauge | Counter]


def of_the_process(loop: LoopWatch) -> Figures:
    """What there is to tell whether it leads or waits."""
    return [
        Gauge(
            "mumian_loop_stall_max_seconds",
            "Longest time of the last minute for which the event loop kept others waiting.",
            loop.worst_s,
        ),
        Counter(
            "mumian_loop_stalls",
            "Stalls of the event loop of more than 100 ms.",
            "",
            lambda: {"": loop.over_limit},
        ),
    ]


def of_the_leader(services: Services) -> Figures:
    """What there is to tell while it leads."""
    admission, scheduler, brake = services.admission, services.scheduler, services.disconnections
    return [
        Gauge("mumian_leading", "1 while this coordinator leads.", lambda: 1),
        Counter(
            "mumian_requests",
            "Requests of tenants that were let in, by their queue.",
            "queue",
            lambda: {"changes": admission.changes.done, "questions": admission.questions.done},
        ),
        Counter(
            "mumian_requests_refused",
            "Requests of tenants that were refused because too many waited.",
            "queue",
            lambda: {"changes": admission.changes.refused, "questions": admission.questions.refused},
        ),
        Gauge(
            "mumian_changes_waiting", "Changes that wait for their turn.", lambda: admission.changes.waiting
        ),
        Gauge(
            "mumian_questions_waiting",
            "Plans and explanations that wait.",
            lambda: admission.questions.waiting,
        ),
        Gauge("mumian_evaluations_waiting", "Jobs to be considered.", lambda: scheduler.queue_length),
        Gauge("mumian_commits_waiting", "Changes that are not durable yet.", services.commits_waiting),
        Gauge(
            "mumian_jobs_without_place", "Jobs with tasks to place.", lambda: len(services.table.waiting())
        ),
        Gauge("mumian_agent_sessions", "Connected agents.", services.sessions.count),
        Gauge("mumian_sites_reachable", "Sites that are heard.", services.fleet.reachable_count),
        Gauge("mumian_brake_engaged", "1 while lost tasks are not replaced.", lambda: brake.brake().engaged),
        Counter(
            "mumian_allocations_lost", "Allocations that were given up.", "", lambda: {"": brake.lost_count}
        ),
        Counter(
            "mumian_plan_conflicts",
            "Plans for a job that the state had overtaken.",
            "",
            lambda: {"": services.applier.conflicts},
        ),
        Counter(
            "mumian_solver_faults", "Times the solver failed, by how.", "kind", lambda: services.solver.faults
        ),
    ]
