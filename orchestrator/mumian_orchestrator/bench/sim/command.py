"""`mumian-bench sim` and `mumian-bench compare`: the twin of a city."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from mumian_orchestrator.bench.sim.fields import ScenarioError
from mumian_orchestrator.bench.sim.policies import policy
from mumian_orchestrator.bench.sim.report import figures
from mumian_orchestrator.bench.sim.runner import run_on_core, run_on_services
from mumian_orchestrator.bench.sim.scenario import load

_COMPARED = (
    "inside_slo",
    "starts",
    "waiting_at_end",
    "wait_mean_s",
    "cpu_utilisation",
    "meter_kwh",
    "carbon_kg",
    "cny",
)
_SCENARIO = click.argument("path", metavar="SCENARIO", type=click.Path(path_type=Path))
_OUTPUT = click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)


class _BadInputError(click.ClickException):
    exit_code = 2


@click.command()
@_SCENARIO
@click.option("--mode", type=click.Choice(["core", "services"]), default="core", show_default=True)
@click.option("--policy", "policy_name", default="ours", show_default=True)
@click.option("--seed", type=int, help="Default: the scenario's.")
@_OUTPUT
def sim(path: Path, mode: str, policy_name: str, seed: int | None, output: str) -> None:
    """Run a scenario in virtual time. `core` drives the engine in batches; `services` sends every task
    through admission, scheduler, plan applier and reconciler, and is for small scenarios.
    """
    try:
        scenario, decider = load(path), policy(policy_name)
        if mode == "services" and policy_name != "ours":
            raise ScenarioError(f"--policy ({policy_name}) runs with --mode core only")
        used_seed = scenario.seed if seed is None else seed
        start = time.perf_counter()
        with Progress(console=Console(stderr=True), transient=True, disable=output == "json") as bar:
            shown = bar.add_task(f"{scenario.name}, seed {used_seed}", total=scenario.duration_s)

            def progress(now_s: int) -> None:
                bar.update(shown, completed=now_s)

            if mode == "core":
                run = run_on_core(scenario, used_seed, decider, progress)
            else:
                run = run_on_services(scenario, used_seed, progress)
    except ScenarioError as error:
        raise _BadInputError(str(error)) from error
    wall_s = time.perf_counter() - start
    found = figures(run)
    if output == "json":
        about = {"scenario": scenario.name, "seed": used_seed, "mode": mode, "policy": policy_name}
        click.echo(json.dumps({**about, **found}, indent=2))
        return
    table = Table("figure", "value", title=f"{scenario.name}: {scenario.node_count} nodes, seed {used_seed}")
    for name, value in found.items():
        if not isinstance(value, Mapping):
            table.add_row(name, f"{value}")
    console = Console()
    console.print(table)
    tasks = sum(run.account.arrived.values())
    memory_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    console.print(
        f"{wall_s:.1f} s on the clock, {run.backend.decision_s:.1f} s of it deciding; "
        f"{tasks / wall_s:.0f} tasks/s; {memory_mib} MiB"
    )


@click.command()
@_SCENARIO
@click.option("--policies", default="ours,nearest,cheapest,greenest,random", show_default=True)
@click.option("--seeds", type=click.IntRange(1, 1000), default=3, show_default=True)
@_OUTPUT
def compare(path: Path, policies: str, seeds: int, output: str) -> None:
    """Run the same arrivals under several policies; the mean of the seeds. A name that ends in .py is a file
    with a policy of your own.
    """
    try:
        scenario = load(path)
        rows: dict[str, dict[str, float]] = {}
        for name in policies.split(","):
            runs = [
                figures(run_on_core(scenario, scenario.seed + n, policy(name.strip()))) for n in range(seeds)
            ]
            rows[name.strip()] = {f: fmean(float(str(run[f])) for run in runs) for f in _COMPARED}
    except ScenarioError as error:
        raise _BadInputError(str(error)) from error
    if output == "json":
        click.echo(json.dumps({"scenario": scenario.name, "seeds": seeds, "policies": rows}, indent=2))
        return
    table = Table("policy", *_COMPARED, title=f"{scenario.name}, mean of {seeds} seeds")
    for name, row in rows.items():
        table.add_row(name, *(f"{row[f]:.4g}" if row[f] < 1 else f"{row[f]:.1f}" for f in _COMPARED))
    Console(width=140).print(table)
