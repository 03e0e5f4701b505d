"""`mumian top`: the fleet and the jobs, as they change."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from mumian.api.v1 import job_pb2
from mumian.api.v1.fleet_pb2 import Site
from mumian.api.v1.job_pb2 import Job
from mumian.cli import figures, words
from mumian.cli.fleet import site_table
from mumian.cli.jobs import cost_microcny_per_hour, is_live, sites_of, tasks_running
from mumian.cli.json_output import as_dict, print_json_line
from mumian.cli.session import Session, pass_session, shared_options
from mumian.errors import MumianError

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table

JOBS_SHOWN_MAX = 20
_LIVE = (job_pb2.JOB_STATE_PENDING, job_pb2.JOB_STATE_STARTING, job_pb2.JOB_STATE_RUNNING)


class Seconds(click.FloatRange):
    """A length of time; "nan", which compares with nothing, is none."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number, within the range."""
        converted = super().convert(value, param, ctx)
        if math.isnan(converted):
            self.fail(f"{value} is no length of time.", param, ctx)
        return converted


@dataclass(frozen=True, slots=True)
class View:
    """What one refresh shows."""

    sites: Sequence[Site]
    jobs: Sequence[Job]


@click.command()
@click.option("--once", is_flag=True, help="Print once, as when the output is no terminal.")
@click.option(
    "--interval",
    "interval_s",
    type=Seconds(0.2, 3600),
    default=1.0,
    metavar="SECONDS",
    show_default=True,
    help="Time between two refreshes.",
)
@shared_options
@pass_session
def top(session: Session, once: bool, interval_s: float) -> None:
    """Watch sites and live jobs. Ctrl-C ends it."""
    if session.json:
        while True:
            view = _read(session)
            print_json_line(
                {"sites": [as_dict(s) for s in view.sites], "jobs": [as_dict(j) for j in view.jobs]}
            )
            if once:
                return
            time.sleep(interval_s)
    if once or not session.console.is_terminal:
        session.console.print(_rendered(session, _read(session)))
        return
    from rich.live import Live

    with Live(
        _rendered(session, _read(session)), console=session.console, screen=True, auto_refresh=False
    ) as live:
        while True:
            time.sleep(interval_s)
            live.update(_next(session), refresh=True)


def _read(session: Session) -> View:
    client = session.client
    return View(list(client.sites()), list(islice(client.list(_LIVE), JOBS_SHOWN_MAX)))


def _next(session: Session) -> RenderableType:
    """The next picture; while nobody answers, that is what it says."""
    try:
        return _rendered(session, _read(session))
    except MumianError as error:
        from rich.text import Text

        return Text(f"{error.reason}: {error.message}", style="bold red")


def _rendered(session: Session, view: View) -> Group:
    from rich.console import Group
    from rich.text import Text

    allocations = [a for job in view.jobs for a in job.allocations if is_live(a)]
    microcny = sum(a.cost.total_microcny_per_hour for a in allocations)
    power_mw = sum(site.facility_power_mw for site in view.sites)
    title = Text.assemble(
        ("mumian", "bold"),
        (f"  {session.client.address}  {time.strftime('%H:%M:%S')}", "dim"),
        f"   {figures.count(len(view.sites), 'site')}, {figures.count(len(view.jobs), 'live job')}, "
        f"{figures.count(len(allocations), 'task')}, {figures.cny(microcny)} CNY/h, "
        f"{figures.watts(power_mw)} W at the meters",
    )
    jobs = _job_table(view.jobs) if view.jobs else Text("no live jobs", style="dim")
    return Group(title, Text(), site_table(view.sites), Text(), jobs)


def _job_table(jobs: Sequence[Job]) -> Table:
    from mumian.cli.tables import state, table

    right = ("running", "CNY/h", "worst ms of budget", "age")
    made = table("job", "kind", "state", *right, "sites", right=right, wrapped=("sites",))
    for job in jobs:
        made.add_row(
            job.id,
            words.job_kind(job.spec.kind),
            state(words.job_state(job.state)),
            tasks_running(job),
            figures.cny(cost_microcny_per_hour(job)),
            _worst_latency(job),
            figures.age(job.create_time),
            sites_of(job),
        )
    return made


def _worst_latency(job: Job) -> str:
    timed = [a.latency for a in job.allocations if is_live(a) and a.HasField("latency")]
    if not timed:
        return figures.UNKNOWN
    worst = max(timed, key=lambda latency: latency.total_us / max(1, latency.budget_us))
    return f"{figures.ms(worst.total_us)} of {figures.short_ms(worst.budget_us)}"
