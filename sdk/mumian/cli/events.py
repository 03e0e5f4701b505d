"""`mumian events`."""

from __future__ import annotations

import click

from mumian.api.v1.job_event_pb2 import JobEvent
from mumian.api.v1.job_service_pb2 import ListJobEventsResponse
from mumian.cli import figures, words
from mumian.cli.json_output import print_json
from mumian.cli.session import Session, pass_session, shared_options

_TASKS_NAMED_MAX = 3


@click.command()
@click.argument("job_id", metavar="JOB")
@shared_options
@pass_session
def events(session: Session, job_id: str) -> None:
    """Show what has happened to a job, when and why, oldest first."""
    found = list(session.client.events(job_id))
    if session.json:
        print_json(ListJobEventsResponse(events=found))
        return
    from mumian.cli.tables import state, table

    made = table("time", "event", "tasks", "job", "why", wrapped=("tasks", "why"))
    for event in found:
        made.add_row(
            figures.moment(event.job.update_time),
            words.job_event_kind(event.kind),
            ", ".join(_tasks(event)),
            state(words.job_state(event.job.state)),
            "; ".join(_reasons(event)),
        )
    session.console.print(made)


def _tasks(event: JobEvent) -> list[str]:
    changed = {a.id: a for a in event.job.allocations if a.id in event.changed_allocation_ids}
    named = [
        f"{allocation_id.removeprefix(f'{event.job.id}.')} {words.allocation_state(allocation.state)}"
        f"{f' on {allocation.node_id}' if allocation.node_id else ''}"
        for allocation_id, allocation in changed.items()
    ]
    rest = len(named) - _TASKS_NAMED_MAX
    return named if rest <= 1 else [*named[:_TASKS_NAMED_MAX], f"{rest} more"]


def _reasons(event: JobEvent) -> list[str]:
    """Without repetition: the event's own, the tasks', the job's."""
    told = [
        event.reason,
        *(a.state_message for a in event.job.allocations if a.id in event.changed_allocation_ids),
        event.job.state_message,
    ]
    return list(dict.fromkeys(reason for reason in told if reason))[: _TASKS_NAMED_MAX + 1]
