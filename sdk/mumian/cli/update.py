"""`mumian update`."""

from __future__ import annotations

from pathlib import Path

import click

from mumian.api.v1 import job_pb2
from mumian.api.v1.job_pb2 import Job
from mumian.calls import TERMINAL_STATES
from mumian.cli import words
from mumian.cli.failures import EXIT_FAILED
from mumian.cli.json_output import print_json
from mumian.cli.session import Session, pass_session, shared_options
from mumian.cli.submit import SpecFile, at_its_lines, store_uploads
from mumian.errors import MumianError


@click.command()
@SpecFile
@click.option("--job", "job_name", metavar="JOB", help="Which one. Default: the newest of the file's name.")
@click.option("--detach", is_flag=True, help="Only ask for it; `mumian status` shows how it goes.")
@shared_options
@pass_session
def update(session: Session, file: Path, job_name: str | None, detach: bool) -> int:
    """Replace the tasks of a running service by those of a newer file, task by task.

    Each new task starts beside the old one, which ends when the new one is ready. The update stops when a new
    task fails; what runs then stays as it is. The older file takes an update back.
    """
    from mumian.spec import load_spec

    loaded = load_spec(file)
    try:
        store_uploads(session, loaded)
        job = session.client.update(job_name or loaded.spec.name, loaded.spec)
    except MumianError as error:
        raise at_its_lines(error, loaded) from None
    if job.HasField("rollout") and not detach:
        job = _follow(session, job)
    if session.json:
        print_json(job)
    if job.rollout.stopped:
        raise MumianError("UPDATE_STOPPED", progress_of(job))
    if not session.json:
        session.console.print(progress_of(job), soft_wrap=True)
    return EXIT_FAILED if job.state in TERMINAL_STATES else 0


def progress_of(job: Job) -> str:
    """How the newest update of a job goes, in one line."""
    if job.state in TERMINAL_STATES:
        return f"job {job.id} has ended: {words.job_state(job.state)}"
    if not job.HasField("rollout"):
        return f"job {job.id} is of version {job.version}"
    rollout = job.rollout
    if rollout.stopped:
        return (
            f"the update to version {rollout.version} has stopped with {_count(job)} replaced: "
            f"{rollout.stopped}; update with a file that works, or with the older one to take it back"
        )
    waits = f"; waits for {rollout.waits_for}" if rollout.waits_for else ""
    return f"update to version {rollout.version}: {_count(job)} replaced{waits}"


def _follow(session: Session, job: Job) -> Job:
    """Tell each step until there are no more."""
    shown = ""
    newest = job
    for newest in session.client.watch(job.id):
        if not newest.HasField("rollout") or newest.rollout.stopped:
            break
        if not session.json and progress_of(newest) != shown:
            shown = progress_of(newest)
            session.console.print(shown, soft_wrap=True)
    return newest


def _count(job: Job) -> str:
    """Tasks of the newer version that have taken over, of all: "2 of 3 tasks"."""
    new = sum(
        a.state == job_pb2.ALLOCATION_STATE_RUNNING
        and a.job_version == job.rollout.version
        and not a.takes_over_from
        and not a.stop_requested
        for a in job.allocations
    )
    return f"{new} of {sum(group.count for group in job.spec.task_groups)} tasks"
