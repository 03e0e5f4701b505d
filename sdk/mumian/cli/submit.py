"""`mumian submit` and `mumian plan`."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mumian.api.v1 import job_pb2
from mumian.api.v1.explanation_pb2 import Explanation
from mumian.api.v1.job_pb2 import Job
from mumian.api.v1.job_service_pb2 import PlanJobResponse
from mumian.api.v1.money_pb2 import Shortage
from mumian.calls import TERMINAL_STATES
from mumian.cli import figures, words
from mumian.cli.failures import EXIT_FAILED
from mumian.cli.jobs import endpoints_of
from mumian.cli.json_output import print_json
from mumian.cli.session import Session, pass_session, shared_options
from mumian.errors import MumianError

if TYPE_CHECKING:
    from mumian.spec import LoadedSpec

START_PATIENCE_S = 60.0
_UNHAPPY = (job_pb2.JOB_STATE_PENDING, job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELLED)
_SPEC_PATH = click.Path(path_type=Path, dir_okay=False)
SpecFile = click.argument("file", type=_SPEC_PATH)


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=_SPEC_PATH)
@click.option("--wait", is_flag=True, help="Stay until the job has ended; exit 1 unless it succeeded.")
@click.option("--request-id", metavar="ID", help="At most one job comes of all submissions with this id.")
@shared_options
@pass_session
def submit(session: Session, files: tuple[Path, ...], wait: bool, request_id: str | None) -> int:
    """Submit a job and show where it goes and why.

    Several files, or a file of several jobs with `---` between them, are submitted together.
    """
    from mumian.spec import load_specs

    specs = [loaded for file in files for loaded in load_specs(file)]
    if len(specs) > 1:
        from mumian.cli.submit_many import submit_many

        return submit_many(session, specs, request_id, wait=wait)
    loaded, client = specs[0], session.client
    progress = Progress(session)
    try:
        store_uploads(session, loaded)
        job = client.submit(loaded.spec, request_id)
    except MumianError as error:
        raise at_its_lines(error, loaded) from None
    progress.stored(job)
    try:
        job = progress.until_settled(job)
        if wait and job.state not in TERMINAL_STATES:
            job = progress.until_ended(job)
    except KeyboardInterrupt:
        click.echo(f"\njob {job.id} goes on; `mumian cancel {job.id}` stops it", err=True)
        raise
    if session.json:
        print_json(job)
    else:
        progress.next_commands(job)
    if job.state == job_pb2.JOB_STATE_PENDING:
        _refuse_unplaced(job.explanations)
        if job.HasField("shortage"):
            _refuse_unpaid(session, job.shortage)
    return EXIT_FAILED if job.state in _UNHAPPY and not _set_aside(job.explanations) else 0


@click.command()
@SpecFile
@shared_options
@pass_session
def plan(session: Session, file: Path) -> None:
    """Show where a job would go now. Reserves nothing."""
    from mumian.cli.considered import print_considered
    from mumian.cli.quote import print_quote
    from mumian.spec import load_spec

    loaded = load_spec(file)
    try:
        response = session.client.plan(loaded.spec)
    except MumianError as error:
        raise at_its_lines(error, loaded) from None
    if session.json:
        print_json(response)
    else:
        print_considered(session.console, response.explanations)
        if response.tasks:
            session.console.print(_plan_total(response), style="bold")
        if response.quote.lines:
            print_quote(session, response.quote)
        if told := _set_aside(response.explanations):
            session.console.print(told, style="yellow")
    _refuse_unplaced(response.explanations)
    if response.quote.HasField("shortage"):
        _refuse_unpaid(session, response.quote.shortage)
    if not session.json:
        session.console.print(f"nothing is reserved; `mumian submit {file}` runs it", style="dim")


def is_decided(job: Job) -> bool:
    """Whether there is something to tell: it runs, it has ended, or it is known why it waits."""
    if job.state in TERMINAL_STATES or job.state == job_pb2.JOB_STATE_RUNNING:
        return True
    if job.HasField("shortage"):
        return True
    decided = {explanation.task_group for explanation in job.explanations}
    waits = any(e.placed_task_count < e.task_count for e in job.explanations)
    return waits and decided >= {group.name for group in job.spec.task_groups}


def store_uploads(session: Session, loaded: LoadedSpec) -> None:
    """Store the folders of a job, and name them in its spec."""
    for number, folder in loaded.uploads.items():
        begun_s = time.monotonic()
        bundle = session.client.upload(folder)
        if not session.json:
            took = figures.duration(time.monotonic() - begun_s)
            click.echo(f"{folder} uploaded ({figures.size(bundle.size_bytes)} packed) in {took}")
        loaded.spec.task_groups[number].command.bundle.CopyFrom(bundle)


class Progress:
    """What `submit` tells while it goes on. Silent for programs."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._start_s = self._news_s = time.monotonic()
        self._shown = False

    def stored(self, job: Job) -> None:
        """The job is durable."""
        self._news_s = time.monotonic()
        if not self._session.json:
            # Not by `_say`: what draws the rest is loaded while the job starts.
            click.echo(f"job {job.id} submitted in {self._since()}")

    def until_settled(self, job: Job) -> Job:
        """Watch until there is something to tell, and tell it."""
        try:
            for current in self._session.client.watch(job.id, timeout_s=START_PATIENCE_S):
                job, self._news_s = current, time.monotonic()
                self._decision(job)
                if is_decided(job):
                    break
        except TimeoutError:
            self._news_s = time.monotonic()
            self._say(f"still {words.job_state(job.state)} after {self._since()}: {_message(job)}", "yellow")
            return job
        self._outcome(job)
        return job

    def until_ended(self, job: Job) -> Job:
        """Wait for the end, and tell it."""
        job = self._session.client.wait(job.id)
        self._news_s = time.monotonic()
        self._outcome(job)
        return job

    def _outcome(self, job: Job) -> None:
        """The state that it has come to, and why."""
        self._decision(job)
        state = words.job_state(job.state)
        if job.state == job_pb2.JOB_STATE_PENDING:
            told = _set_aside(job.explanations)
            wait = "there is money" if job.HasField("shortage") else "a site fits"
            message = f"; {told}" if told else f"; it stays pending and is placed as soon as {wait}"
        else:
            message = f": {_message(job)}" if _message(job) else ""
        self._say(f"{state} after {self._since()}{message}", words.STYLES.get(state, ""))
        for allocation in job.allocations:
            if allocation.endpoints:
                task = f"{allocation.task_group}.{allocation.task_index}"
                self._say(f"  {task} answers at {endpoints_of(allocation)}")

    def next_commands(self, job: Job) -> None:
        """What one may want to do next."""
        commands = [f"mumian status {job.id}", f"mumian logs -f {job.id}"]
        if job.state not in TERMINAL_STATES:
            commands.append(f"mumian cancel {job.id}")
        for command in commands:
            self._say(f"  {command}", "dim")

    def _decision(self, job: Job) -> None:
        if self._session.json or self._shown or not job.explanations:
            return
        if {e.task_group for e in job.explanations} < {group.name for group in job.spec.task_groups}:
            return
        from mumian.cli.considered import print_considered

        self._shown = True
        self._session.console.print()
        print_considered(self._session.console, job.explanations)

    def _say(self, line: str, style: str = "") -> None:
        if not self._session.json:
            self._session.console.print(line, style=style, soft_wrap=True)

    def _since(self) -> str:
        # Until the news came: drawing the table is not the platform's time.
        return figures.duration(self._news_s - self._start_s)


def _waiting(explanations: Iterable[Explanation]) -> str:
    from mumian.cli.considered import is_settled, why_not

    return "; ".join(why_not(explanation) for explanation in explanations if not is_settled(explanation))


def _set_aside(explanations: Iterable[Explanation]) -> str:
    from mumian.cli.considered import deferred, held

    told = [told for explanation in explanations for told in (deferred(explanation), held(explanation))]
    return "; ".join(filter(None, told))


def _message(job: Job) -> str:
    if job.state == job_pb2.JOB_STATE_PENDING and _waiting(job.explanations):
        return _waiting(job.explanations)
    return job.state_message or "; ".join(
        sorted({a.state_message for a in job.allocations if a.state_message})
    )


def _refuse_unplaced(explanations: Iterable[Explanation]) -> None:
    """Raise NO_PLACE when tasks have none."""
    waiting = _waiting(explanations)
    if waiting:
        raise MumianError("NO_PLACE", waiting)


def _refuse_unpaid(session: Session, shortage: Shortage) -> None:
    """Raise NO_MONEY."""
    from mumian.cli.budget import lacking

    raise MumianError("NO_MONEY", lacking(session, shortage))


def _plan_total(response: PlanJobResponse) -> str:
    total_microcny = sum(task.cost.total_microcny_per_hour for task in response.tasks)
    facility_mw = sum(task.cost.facility_power_mw for task in response.tasks)
    tasks = figures.count(len(response.tasks), "task")
    return f"{tasks} for {figures.cny(total_microcny)} CNY/h, {figures.watts(facility_mw)} W at the meter"


def at_its_lines(error: MumianError, loaded: LoadedSpec) -> MumianError:
    """The coordinator's refusal, each field with the line of the file that it came from."""
    lines = []
    for violation in error.field_violations:
        origin = loaded.origin_of(violation.field)
        if origin is None:
            return error
        line, key = origin
        lines.append(f"{loaded.path}:{line}: {key or violation.field} {violation.description}")
    if not lines:
        return error
    if "fields_left_out" in error.metadata:
        lines.append(f"and {error.metadata['fields_left_out']} more")
    hint = error.message.partition("; known ")[2]
    if hint:
        lines.append(f"known {hint}")
    return MumianError(error.reason, "\n".join(lines), error.field_violations, error.metadata)
