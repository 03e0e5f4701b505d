"""`mumian fetch`."""

from __future__ import annotations

from pathlib import Path

import click

from mumian.api.v1.job_pb2 import Allocation, Job
from mumian.calls import TERMINAL_STATES
from mumian.cli import figures, words
from mumian.cli.json_output import print_json_line
from mumian.cli.session import Session, pass_session, shared_options
from mumian.errors import MumianError


@click.command()
@click.argument("job_id", metavar="JOB")
@click.option("--task", metavar="TASK", default="", help="Only of this one, such as main.0.")
@click.option(
    *("-d", "--to", "folder"),
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the files go, each task's into a folder of its name. Default: a folder of the job's name.",
)
@shared_options
@pass_session
def fetch(session: Session, job_id: str, task: str, folder: Path | None) -> None:
    """Get the files that the tasks of a job have left (its `outputs`)."""
    job = session.client.get(job_id)
    folder = folder or Path(job_id)
    found = {_task(job, allocation): allocation for allocation in job.allocations if allocation.output_bytes}
    if task:
        found = {name: allocation for name, allocation in found.items() if name == task}
    if not found:
        raise MumianError("OUTPUT_NOT_FOUND", _why_none(job, task))
    for name, allocation in found.items():
        files = session.client.fetch(job_id, allocation.id, folder / name)
        if session.json:
            print_json_line(
                {"allocation_id": allocation.id, "files": [str(folder / name / file) for file in files]}
            )
        else:
            size = figures.size(allocation.output_bytes)
            session.console.print(f"{folder / name}: {figures.count(len(files), 'file')}, {size} packed")


def _task(job: Job, allocation: Allocation) -> str:
    return allocation.id.removeprefix(f"{job.id}.")


def _why_none(job: Job, task: str) -> str:
    whose = f"task {task} of job {job.id}" if task else f"job {job.id}"
    if not any(group.outputs for group in job.spec.task_groups):
        return f"{whose} declares no outputs; add `outputs: [results/*.csv]` to its spec"
    if job.state not in TERMINAL_STATES:
        return f"{whose} has left nothing yet: the job is {words.job_state(job.state)}"
    return f"{whose} has left nothing that its outputs name"
