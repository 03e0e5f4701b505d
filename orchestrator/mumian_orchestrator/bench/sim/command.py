"""`mumian-bench sim` and `mumian-bench compare`: the twin of a city."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

from mumian_orchestrator.bench.sim.fields import ScenarioError
from mumian_orchestrator.bench.sim.forms import scaled, short_form, window
from mumian_orchestrator.bench.sim.policies import POLICIES, SOLVERS, policy
from mumian_orchestrator.bench.sim.record import Record, record
from mumian_orchestrator.bench.sim.report import tables
from mumian_orchestrator.bench.sim.report.page import page
from mumian_orchestrator.bench.sim.report.summary import rows
from mumian_orchestrator.bench.sim.runner import Run
from mumian_orchestrator.bench.sim.scenario import Scenario, load
from mumian_orchestrator.bench.sim.sweep import READINGS, Case, sweep

SCENARIO = click.argument("path", metavar="SCENARIO", type=click.Path(path_type=Path))
_SCENARIOS = click.argument(
    "paths", metavar="SCENARIO...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
SHORT = click.option(
    "--short", is_flag=True, help="The scenario's short form: some hours at a share of its size."
)
HOURS = click.option("--hours", type=click.FloatRange(0.01), help="Only the first hours.")
SCALE = click.option("--scale", type=click.FloatRange(0.001, 1), help="This share of nodes and arrivals.")
_OUTPUT = click.option(
    "--output",
    type=click.Choice(["text", "csv", "json", "html"]),
    default="text",
    show_default=True,
    help="csv: a line for each run; html: one page with plots.",
)
_FILE = click.option(
    "--file", type=click.Path(path_type=Path), help="Write there instead of to the terminal."
)


class BadInputError(click.ClickException):
    """What was asked for cannot be done; says why."""

    exit_code = 2


@click.command()
@SCENARIO
@click.option("--mode", type=click.Choice(["core", "services"]), default="core", show_default=True)
@click.option("--policy", "policy_name", default="ours", show_default=True)
@click.option("--seed", type=int, help="Default: the scenario's.")
@SHORT
@HOURS
@SCALE
@_OUTPUT
@_FILE
def sim(
    path: Path,
    mode: str,
    policy_name: str,
    seed: int | None,
    short: bool,
    hours: float | None,
    scale: float | None,
    output: str,
    file: Path | None,
) -> None:
    """Run a scenario in virtual time. `core` drives the engine in batches; `services` sends every task
    through admission, scheduler, plan applier and reconciler, and is for small scenarios.
    """
    _check_writable(file)
    try:
        scenario = form(load(path), short=short, hours=hours, scale=scale)
        policy(policy_name)
        run, used_seed = Run(scenario, policy_name, mode), scenario.seed if seed is None else seed
        with Progress(console=Console(stderr=True), transient=True) as bar:
            shown = bar.add_task(f"{scenario.name}, seed {used_seed}", total=scenario.duration_s)
            made = record(run, used_seed, lambda now_s: bar.update(shown, completed=now_s))
    except ScenarioError as error:
        raise BadInputError(str(error)) from error
    if output == "text" and file is None:
        tables.print_run(made, Console())
    else:
        _write([scenario], [made], output, file)


@click.command()
@_SCENARIOS
@click.option(
    "--policies",
    default="ours,ours-reoptimised,nearest,cheapest,greenest,random",
    show_default=True,
    help=f"Of {', '.join(POLICIES)}; all: every one of these; {' and '.join(SOLVERS)} (after `make peers`); "
    "and Python files.",
)
@click.option("--seeds", type=click.IntRange(1, 1000), default=3, show_default=True)
@SHORT
@HOURS
@SCALE
@click.option(
    "--processes", type=click.IntRange(0), default=0, help="Runs at once; default: one for each core."
)
@click.option("--ray", "on_ray", is_flag=True, help="On the Ray cluster at RAY_ADDRESS, or one started here.")
@click.option("--markdown", is_flag=True, help="Tables for a document.")
@_OUTPUT
@_FILE
def compare(
    paths: tuple[Path, ...],
    policies: str,
    seeds: int,
    short: bool,
    hours: float | None,
    scale: float | None,
    processes: int,
    on_ray: bool,
    markdown: bool,
    output: str,
    file: Path | None,
) -> None:
    """Run the same arrivals under several policies; the mean of the seeds. A name that ends in .py is a file
    with a policy of your own.
    """
    _check_writable(file)
    try:
        names = _policies(policies)
        scenarios = [form(load(path), short=short, hours=hours, scale=scale) for path in paths]
        twice = [name for name, count in Counter(s.name for s in scenarios).items() if count > 1]
        if twice:
            raise ScenarioError(f"scenario {twice[0]} is there twice; give each once, by a name of its own")
        cases = [
            Case(Run(scenario, name, readings=READINGS), scenario.seed + number)
            for scenario in scenarios
            for name in names
            for number in range(seeds)
        ]
        with Progress(console=Console(stderr=True), transient=True) as bar:
            shown = bar.add_task("runs", total=len(cases))
            records = sweep(cases, processes, on_ray=on_ray, done=lambda n: bar.update(shown, completed=n))
    except ScenarioError as error:
        raise BadInputError(str(error)) from error
    if markdown:
        _put(tables.as_markdown(rows(records)), file)
    elif output == "text" and file is None:
        tables.print_comparison(rows(records), Console())
    else:
        _write(scenarios, records, output, file)


def _policies(text: str) -> list[str]:
    names = [name for part in text.split(",") if (name := part.strip())]
    names = [each for name in names for each in (POLICIES if name == "all" else (name,))]
    if not names:
        raise ScenarioError(f"--policies ({text}) names none; known: {', '.join(POLICIES)}")
    for name in names:
        policy(name)
    return list(dict.fromkeys(names))


def _check_writable(file: Path | None) -> None:
    """Before anything runs: hours later it would be too late."""
    if file is None:
        return
    if file.is_dir() or not file.parent.is_dir():
        why = "it is a folder" if file.is_dir() else f"there is no folder {file.parent}"
        raise BadInputError(f"--file ({file}) cannot be written: {why}")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise BadInputError(f"--file ({file}) cannot be written: permission denied")


def form(scenario: Scenario, *, short: bool, hours: float | None, scale: float | None) -> Scenario:
    """The form of a scenario that the options ask for."""
    if short:
        scenario = short_form(scenario)
    if hours is not None:
        scenario = window(scenario, 0, hours)
    return scenario if scale is None else scaled(scenario, scale)


def _write(scenarios: Sequence[Scenario], records: Sequence[Record], output: str, file: Path | None) -> None:
    if output == "html":
        text = page({scenario.name: scenario for scenario in scenarios}, records)
    elif output == "csv":
        text = tables.as_csv(records)
    elif output == "json":
        text = tables.as_json(records)
    else:
        written = io.StringIO()
        console = Console(file=written, width=160)
        if len(records) == 1:
            tables.print_run(records[0], console)
        else:
            tables.print_comparison(rows(records), console)
        text = written.getvalue()
    _put(text, file)


def _put(text: str, file: Path | None) -> None:
    if file is None:
        click.echo(text, nl=False)
        return
    try:
        file.write_text(text)
    except OSError as error:
        raise BadInputError(f"--file ({file}) cannot be written: {error.strerror}") from error
