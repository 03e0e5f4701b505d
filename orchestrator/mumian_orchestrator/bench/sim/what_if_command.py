"""`mumian-bench what-if`: a scenario before and after a change."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from mumian_orchestrator.bench.sim.command import HOURS, SCALE, SCENARIO, SHORT, BadInputError, form
from mumian_orchestrator.bench.sim.fields import ScenarioError
from mumian_orchestrator.bench.sim.policies import policy
from mumian_orchestrator.bench.sim.record import machine
from mumian_orchestrator.bench.sim.report.figures import SHARES
from mumian_orchestrator.bench.sim.report.summary import Row, rows
from mumian_orchestrator.bench.sim.report.tables import title, told
from mumian_orchestrator.bench.sim.runner import Run
from mumian_orchestrator.bench.sim.scenario import load
from mumian_orchestrator.bench.sim.sweep import READINGS, Case, sweep
from mumian_orchestrator.bench.sim.what_if import CHANGES, changed

_SHOWN = (
    "inside_slo",
    "arrived",
    "starts",
    "waiting_at_end",
    "lost_with_a_site",
    "wait_mean_s",
    "cpu_utilisation",
    "meter_kwh",
    "idle_kwh",
    "pue",
    "carbon_kg",
    "cny",
    "cny_per_core_hour",
    "gap_to_bound",
    "fairness_jain",
)


def _with_changes(function: Callable[..., None]) -> Callable[..., None]:
    for name, change in reversed(list(CHANGES.items())):
        told_ = f"{change.told[0].upper()}{change.told[1:]}. May be given again."
        function = click.option(f"--{name}", metavar=change.written, multiple=True, help=told_)(function)
    return function


@click.command("what-if")
@SCENARIO
@_with_changes
@click.option("--policy", "policy_name", default="ours", show_default=True)
@click.option("--seeds", type=click.IntRange(1, 1000), default=3, show_default=True)
@SHORT
@HOURS
@SCALE
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def what_if(
    path: Path,
    policy_name: str,
    seeds: int,
    short: bool,
    hours: float | None,
    scale: float | None,
    output: str,
    **changes: Sequence[str],
) -> None:
    """Run a scenario as it is and with changes, with the same arrivals; what is different, as a table.

    Of a live system: `mumian what-if`.
    """
    asked = [(name.replace("_", "-"), text) for name, texts in changes.items() for text in texts]
    if not asked:
        raise click.UsageError(f"no change is given; add one of {', '.join(f'--{name}' for name in CHANGES)}")
    try:
        policy(policy_name)
        before = form(load(path), short=short, hours=hours, scale=scale)
        after = before
        for name, text in asked:
            after = changed(after, name, text)
        cases = [
            Case(Run(scenario, policy_name, readings=READINGS), scenario.seed + number)
            for scenario in (before, after)
            for number in range(seeds)
        ]
        with Progress(console=Console(stderr=True), transient=True) as bar:
            shown = bar.add_task("runs", total=len(cases))
            records = sweep(cases, 0, on_ray=False, done=lambda n: bar.update(shown, completed=n))
    except ScenarioError as error:
        raise BadInputError(str(error)) from error
    [as_it_is], [with_it] = rows(records[:seeds], _SHOWN), rows(records[seeds:], _SHOWN)
    said = [f"--{name} {text}" for name, text in asked]
    if output == "json":
        click.echo(json.dumps(_as_json(as_it_is, with_it, said), indent=1))
    else:
        Console().print(_table(as_it_is, with_it, said))
        click.echo(machine())


def _table(before: Row, after: Row, said: Sequence[str]) -> Table:
    heading = f"{before.scenario}, {before.policy}, {before.told_seeds}: {' '.join(said)}"
    table = Table("figure", "as it is", "with it", "difference", title=heading)
    for name in _SHOWN:
        old, new = before.values[name], after.values[name]
        if old is None and new is None:
            continue
        change = "-" if old is None or new is None else _difference(name, new.mean - old.mean)
        table.add_row(title(name), told(name, old), told(name, new), change)
    return table


def _difference(name: str, by: float) -> str:
    if name in SHARES:
        return f"{100 * by:+.2f} points"
    return f"{'+' if by > 0 else ''}{told(name, by)}"


def _as_json(before: Row, after: Row, said: Sequence[str]) -> Mapping[str, object]:
    def means(row: Row) -> dict[str, float | None]:
        return {name: value.mean if value else None for name, value in row.values.items()}

    return {
        "scenario": before.scenario,
        "policy": before.policy,
        "seeds": list(before.seeds),
        "changes": list(said),
        "before": means(before),
        "after": means(after),
        "machine": machine(),
    }
