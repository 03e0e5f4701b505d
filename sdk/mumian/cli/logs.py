"""`mumian logs`."""

from __future__ import annotations

import sys

import click

from mumian.api.v1.job_service_pb2 import LOG_STREAM_STDERR
from mumian.calls import TERMINAL_STATES
from mumian.cli.json_output import print_json_line
from mumian.cli.session import Session, pass_session, shared_options


@click.command()
@click.argument("job_id", metavar="JOB")
@click.option("-f", "--follow", is_flag=True, help="Go on until the task ends; wait for it to have a place.")
@click.option("--task", metavar="GROUP.N", help="Of this task; default: the first.")
@click.option("--tail", type=click.IntRange(1, 1 << 62), metavar="BYTES", help="Only the last so many bytes.")
@shared_options
@pass_session
def logs(session: Session, job_id: str, follow: bool, task: str | None, tail: int | None) -> None:
    """Print what a task has written, its errors to standard error."""
    allocation_id = f"{job_id}.{task.removeprefix(f'{job_id}.')}" if task else ""
    if follow:
        _until_it_has_a_place(session, job_id, allocation_id)
    chunks = session.client.log_chunks(job_id, allocation_id, follow=follow, tail_bytes=tail or 0)
    for chunk in chunks:
        if session.json:
            print_json_line(chunk)
            continue
        stream = sys.stderr if chunk.stream == LOG_STREAM_STDERR else sys.stdout
        stream.buffer.write(chunk.data)
        stream.flush()


def _until_it_has_a_place(session: Session, job_id: str, allocation_id: str) -> None:
    told = False
    for job in session.client.watch(job_id):
        known = [allocation.id for allocation in job.allocations]
        if job.state in TERMINAL_STATES or (allocation_id in known if allocation_id else known):
            return
        if not told and not session.json:
            told = True
            session.notes.print(
                f"job {job_id} waits for a place; `mumian explain {job_id}` says why", style="dim"
            )
