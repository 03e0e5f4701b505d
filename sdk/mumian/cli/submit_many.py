"""`mumian submit` of several jobs at once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from mumian.api.v1 import job_pb2
from mumian.api.v1.job_pb2 import Job
from mumian.cli import figures, words
from mumian.cli.failures import EXIT_FAILED, report
from mumian.cli.json_output import as_dict, print_json_line
from mumian.cli.session import Session
from mumian.cli.submit import at_its_lines, store_uploads
from mumian.errors import MumianError

if TYPE_CHECKING:
    from mumian.spec import LoadedSpec

# What is done for several of them is told in one line from here on.
_SHOWN_MAX = 20


def submit_many(session: Session, loaded: Sequence[LoadedSpec], request_id: str | None, *, wait: bool) -> int:
    """Submit jobs and tell what has come of each; the exit code is the worst of theirs.

    Args:
        request_id: each has it with its number behind.
    """
    begun_s = time.monotonic()
    for each in loaded:
        store_uploads(session, each)
    ids = [f"{request_id}.{number}" for number in range(1, len(loaded) + 1)] if request_id else None
    outcomes = session.client.submit_many([each.spec for each in loaded], ids)
    refused = {
        number: at_its_lines(outcome, loaded[number])
        for number, outcome in enumerate(outcomes)
        if isinstance(outcome, MumianError)
    }
    jobs = [outcome for outcome in outcomes if isinstance(outcome, Job)]
    if session.json:
        for number, outcome in enumerate(outcomes):
            print_json_line(_told(outcome, refused.get(number)))
    else:
        for job in jobs[:_SHOWN_MAX]:
            click.echo(f"job {job.id} submitted")
        more = f", {len(jobs) - _SHOWN_MAX} of them not shown" if len(jobs) > _SHOWN_MAX else ""
        took = figures.duration(time.monotonic() - begun_s)
        click.echo(f"{figures.count(len(jobs), 'job')} submitted in {took}{more}; `mumian jobs` lists them")
    codes = [report(error, json_output=session.json) for error in refused.values()]
    if wait:
        codes += [_end_of(session, job) for job in jobs]
    return max(codes, default=0)


def _end_of(session: Session, job: Job) -> int:
    job = session.client.wait(job.id)
    if not session.json:
        message = f": {job.state_message}" if job.state_message else ""
        click.echo(f"job {job.id} {words.job_state(job.state)}{message}")
    return 0 if job.state == job_pb2.JOB_STATE_SUCCEEDED else EXIT_FAILED


def _told(outcome: Job | MumianError, refused: MumianError | None) -> dict[str, Any]:
    if isinstance(outcome, Job):
        return {"job": as_dict(outcome)}
    error = refused or outcome
    violations = [{"field": v.field, "description": v.description} for v in error.field_violations]
    return {"error": {"reason": error.reason, "message": error.message, "field_violations": violations}}
