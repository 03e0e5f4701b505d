"""`mumian-bench gap`: any file of generalized assignment instances through the engine's optimiser."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path

import click
from mumian_core import CoreError

from mumian_orchestrator.bench.gap.best_known import best_known_of
from mumian_orchestrator.bench.gap.orlib import GapFileError, read_instances
from mumian_orchestrator.bench.gap.solve import solve


class _BadInputError(click.ClickException):
    exit_code = 2


def _number(_context: click.Context, _option: click.Parameter, seconds: float) -> float:
    """No range keeps out what is no number."""
    if math.isnan(seconds):
        raise click.BadParameter("nan is no time; give a number of seconds")
    return seconds


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path))
@click.option(
    "--seconds",
    type=click.FloatRange(0, 86_400, min_open=True),
    default=10,
    show_default=True,
    callback=_number,
    help="Time for each instance.",
)
@click.option("--threads", type=click.IntRange(0, 1024), default=0, help="0: as many as there are cores.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True)
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def gap(files: tuple[Path, ...], seconds: float, threads: int, seed: int, output: str) -> None:
    """Assign the jobs of each instance to its agents at the least cost, and say how far that is from the
    optimum: by our own bound, and by the best known cost where `best_known.csv` beside FILE lists it.

    FILE is in the OR-Library's format: the numbers of agents and jobs, the costs and the weights agent by
    agent, the agents' capacities; a file of several instances begins with their number.
    """
    try:
        instances = [(read_instances(file), best_known_of(file.parent)) for file in files]
    except GapFileError as error:
        raise _BadInputError(str(error)) from error
    results = []
    for of_file, best_known in instances:
        for instance in of_file:
            try:
                result = solve(instance, best_known.get(instance.name), seconds, threads, seed)
            except CoreError as error:
                code, message = error.args
                raise _BadInputError(f"{instance.name}: {code}: {message}") from error
            results.append(result)
            if output == "text":
                for name, value, unit in result.figures():
                    text = str(value) if isinstance(value, int) else f"{value:.4g}"
                    click.echo(f"gap_{result.instance}_{name} {text} {unit}")
    if output == "json":
        click.echo(json.dumps({"instances": [asdict(result) for result in results]}, indent=2))
