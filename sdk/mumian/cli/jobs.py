"""`mumian jobs`, `status`, `cancel` and `explain`."""

from __future__ import annotations

from itertools import islice

import click

from mumian.api.v1 import job_pb2
from mumian.api.v1.job_pb2 import Allocation, Job
from mumian.api.v1.job_service_pb2 import ListJobsResponse
from mumian.calls import TERMINAL_STATES
from mumian.cli import figures, words
from mumian.cli.json_output import print_json
from mumian.cli.session import Session, pass_session, shared_options

_STATES = [name.removeprefix("JOB_STATE_").lower() for name in job_pb2.JobState.keys()[1:]]
LIMIT_MAX = 1_000_000
JobArgument = click.argument("job_id", metavar="JOB")


@click.command()
@click.option("--state", "states", multiple=True, type=click.Choice(_STATES), help="Only these; repeatable.")
@click.option(
    "--limit", type=click.IntRange(1, LIMIT_MAX), default=50, show_default=True, help="The newest so many."
)
@click.option("--all", "archived", is_flag=True, help="Those too that have ended long ago.")
@shared_options
@pass_session
def jobs(session: Session, states: tuple[str, ...], limit: int, archived: bool) -> None:
    """List the tenant's jobs, newest first."""
    wanted = [job_pb2.JobState.Value(f"JOB_STATE_{state.upper()}") for state in states]
    found = list(islice(session.client.list(wanted, archived=archived), limit))
    if session.json:
        print_json(ListJobsResponse(jobs=found))
        return
    from mumian.cli.tables import state, table

    if not found:
        session.console.print("no jobs; `mumian submit FILE` makes one", style="dim")
        return
    figures_of = ("running", "CNY/h", "age")
    made = table(
        "job", "kind", "state", *figures_of, "sites", "message", right=figures_of, wrapped=("message",)
    )
    for job in found:
        made.add_row(
            job.id,
            words.job_kind(job.spec.kind),
            state(words.job_state(job.state)),
            tasks_running(job),
            figures.cny(cost_microcny_per_hour(job)),
            figures.age(job.create_time),
            sites_of(job),
            job.state_message,
        )
    session.console.print(made)


@click.command()
@JobArgument
@shared_options
@pass_session
def status(session: Session, job_id: str) -> None:
    """Show one job: its state and why, and where each task is."""
    job = session.client.get(job_id)
    if session.json:
        print_json(job)
        return
    from rich.text import Text

    from mumian.cli.considered import waiting
    from mumian.cli.tables import state

    facts = (
        words.job_kind(job.spec.kind),
        f"priority {job.spec.priority}",
        f"tenant {job.tenant_id}",
        f"{figures.age(job.create_time)} old",
    )
    session.console.print(
        Text.assemble((job.id, "bold"), "  ", state(words.job_state(job.state)), f"  {', '.join(facts)}")
    )
    if job.cancel_requested and job.state not in TERMINAL_STATES:
        session.console.print("it was asked to stop", style="yellow")
    if job.state_message and not (job.shortage.summary and job.state_message == job.shortage.summary):
        session.console.print(job.state_message)
    if job.HasField("rollout"):
        from mumian.cli.update import progress_of

        session.console.print(progress_of(job), style="yellow", soft_wrap=True)
    if job.state == job_pb2.JOB_STATE_PENDING:
        for explanation in job.explanations:
            if told := waiting(explanation):
                session.console.print(told, style="yellow")
    if job.HasField("shortage"):
        from mumian.cli.budget import lacking

        session.console.print(lacking(session, job.shortage), style="yellow", soft_wrap=True)
    if job.allocations:
        session.console.print()
        _print_allocations(session, job)


@click.command()
@JobArgument
@shared_options
@pass_session
def cancel(session: Session, job_id: str) -> None:
    """Stop a job with all its tasks."""
    job = session.client.cancel(job_id)
    if session.json:
        print_json(job)
    elif job.state in TERMINAL_STATES:
        session.console.print(f"job {job.id} has ended: {words.job_state(job.state)}")
    else:
        session.console.print(f"job {job.id} is being stopped; `mumian status {job.id}` shows when it has")


@click.command()
@JobArgument
@shared_options
@pass_session
def explain(session: Session, job_id: str) -> None:
    """Show why a job is where it is, or why it waits as things are now."""
    answer = session.client.explain(job_id)
    if session.json:
        print_json(answer)
        return
    from mumian.cli.considered import print_considered, waiting

    if not answer.explanations:
        session.console.print(f"job {job_id} has not been considered yet; try again", style="dim")
    print_considered(session.console, answer.explanations)
    for explanation in answer.explanations:
        if told := waiting(explanation):
            session.console.print(told, style="yellow")
    if answer.HasField("shortage"):
        from mumian.cli.budget import lacking

        session.console.print(lacking(session, answer.shortage), style="yellow", soft_wrap=True)
    for told in answer.disconnects:
        session.console.print(told, style="yellow")


def tasks_running(job: Job) -> str:
    """Tasks that run, of all: "2/3"."""
    running = sum(a.state == job_pb2.ALLOCATION_STATE_RUNNING for a in job.allocations)
    return f"{running}/{sum(group.count for group in job.spec.task_groups)}"


def cost_microcny_per_hour(job: Job) -> int:
    """What its live allocations cost now."""
    return sum(a.cost.total_microcny_per_hour for a in job.allocations if is_live(a))


def is_live(allocation: Allocation) -> bool:
    """Whether it holds resources."""
    return allocation.state in (
        job_pb2.ALLOCATION_STATE_PENDING,
        job_pb2.ALLOCATION_STATE_STARTING,
        job_pb2.ALLOCATION_STATE_RUNNING,
        job_pb2.ALLOCATION_STATE_UNKNOWN,
    )


def sites_of(job: Job) -> str:
    """The sites of its newest allocations."""
    live = {a.site_id for a in job.allocations if is_live(a)} or {a.site_id for a in job.allocations}
    return ", ".join(sorted(live)) or figures.UNKNOWN


def endpoints_of(allocation: Allocation) -> str:
    """Where it answers: the address of its one port, or "http 10.0.0.1:80, metrics 10.0.0.1:81"."""
    if len(allocation.endpoints) == 1:
        return allocation.endpoints[0].address
    return ", ".join(f"{each.port} {each.address}" for each in allocation.endpoints)


def _print_allocations(session: Session, job: Job) -> None:
    from mumian.cli.tables import state, table

    timed = any(a.HasField("latency") for a in job.allocations)
    latency = ("ms of budget",) if timed else ()
    figures_of = ("restarts", *latency, "CNY/h", "IT Wh")
    made = table(
        *("task", "site", "node", "state", *figures_of, "endpoint"), right=figures_of, wrapped=("endpoint",)
    )
    notes = []
    for allocation in job.allocations:
        task = allocation.id.removeprefix(f"{job.id}.")
        total = allocation.latency
        made.add_row(
            task,
            allocation.site_id,
            allocation.node_id.removeprefix(f"{allocation.site_id}/"),
            state(words.allocation_state(allocation.state)),
            str(allocation.restart_count),
            *((f"{figures.ms(total.total_us)} of {figures.short_ms(total.budget_us)}",) if timed else ()),
            figures.cny(allocation.cost.total_microcny_per_hour),
            figures.watt_hours(allocation.it_energy_uj),
            endpoints_of(allocation) or figures.UNKNOWN,
            style="" if is_live(allocation) else "dim",
        )
        ended = f"exit code {allocation.exit_code}" if allocation.HasField("exit_code") else ""
        unwell = f"unwell: {allocation.health_fault}" if allocation.health_fault else ""
        told = ", ".join(part for part in (allocation.state_message, unwell, ended) if part)
        if told:
            notes.append(f"{task}: {told}")
    session.console.print(made)
    for note in notes:
        session.console.print(note, style="dim", soft_wrap=True)
