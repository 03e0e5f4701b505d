"""`mumian-bench openb`: Alibaba's GPU trace, or any in its format, through the engine."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, median

import click

from mumian_orchestrator.bench.openb import published
from mumian_orchestrator.bench.openb.messages import Objective
from mumian_orchestrator.bench.openb.published import published_allocation, workload_of
from mumian_orchestrator.bench.openb.reoptimised import ReoptimisedReplay, replay_reoptimised
from mumian_orchestrator.bench.openb.replay import (
    Arrivals,
    ReplayError,
    capacity_milli,
    replay,
)
from mumian_orchestrator.bench.openb.result import Outcome
from mumian_orchestrator.bench.openb.trace import TraceFileError, read_nodes, read_tasks


class _BadInputError(click.ClickException):
    exit_code = 2


@click.command()
@click.option("--nodes", "nodes_file", type=click.Path(path_type=Path), help="Default: the published runs'.")
@click.option("--tasks", "tasks_file", type=click.Path(path_type=Path), help="Default: the trace's own list.")
@click.option("--seeds", type=click.IntRange(1, 1000), default=10, show_default=True)
@click.option(
    "--objective",
    "objectives",
    multiple=True,
    type=click.Choice([o.name.lower() for o in Objective]),
    help="May be repeated. Default: all.",
)
@click.option(
    "--arrivals",
    type=click.Choice([a.value for a in Arrivals]),
    default=Arrivals.DRAWN.value,
    show_default=True,
    help="drawn: each from the list, with replacement. listed: first the whole list, shuffled.",
)
@click.option("--one-by-one", is_flag=True, help="A request and a commit for each task; the same placements.")
@click.option(
    "--reoptimise-every",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Also by PACK with a global optimisation after every N arrivals, which may move what runs. 0: no.",
)
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def openb(
    nodes_file: Path | None,
    tasks_file: Path | None,
    seeds: int,
    objectives: Sequence[str],
    arrivals: str,
    one_by_one: bool,
    reoptimise_every: int,
    output: str,
) -> None:
    """Replay a GPU trace: tasks arrive until they ask for 130 % of the GPUs, each is placed online, none
    leaves, and none is moved unless --reoptimise-every asks for it. Prints the GPUs allocated at 100 and
    130 % of arrived demand, beside the published table where the workload is in it, and the tasks placed
    per second.

    The speed is for each second of one core inside the engine, which decodes one request with all arrivals,
    places them from a cold index, and encodes the plan.
    """
    nodes_path, tasks_path = nodes_file or published.NODES, tasks_file or published.TASKS
    try:
        for path, given in ((nodes_path, nodes_file), (tasks_path, tasks_file)):
            if given is None and not path.exists():
                raise TraceFileError(
                    f"{path}: not there; run it in a checkout of the repository, or give --nodes and --tasks"
                )
        nodes, tasks = read_nodes(nodes_path), read_tasks(tasks_path)
        workload = workload_of(tasks_path)
        table = published_allocation(workload) if nodes_path == published.NODES else {}
        chosen = [o for o in Objective if not objectives or o.name.lower() in objectives]
        outcomes = []
        for objective in chosen:
            replays = []
            for seed in range(seeds):
                _progress(f"{objective.name} seed {seed + 1} of {seeds}")
                replays.append(
                    replay(nodes, tasks, objective, seed, Arrivals(arrivals), one_by_one=one_by_one)
                )
            outcomes.append(Outcome(objective, replays))
        reoptimised = []
        for seed in range(seeds if reoptimise_every else 0):
            _progress(f"PACK reoptimised, seed {seed + 1} of {seeds}")
            reoptimised.append(
                replay_reoptimised(nodes, tasks, seed, Arrivals(arrivals), every=reoptimise_every)
            )
        _progress("")
    except (TraceFileError, ReplayError) as error:
        raise _BadInputError(str(error)) from error
    if output == "json":
        content = {
            "nodes": {"file": str(nodes_path), "count": len(nodes), "gpus": capacity_milli(nodes) // 1000},
            "tasks": {"file": str(tasks_path), "count": len(tasks), "workload": workload},
            "seeds": list(range(seeds)),
            "arrivals": arrivals,
            "one_by_one": one_by_one,
            "outcomes": [outcome.to_json() for outcome in outcomes],
            "reoptimised_every": reoptimise_every,
            "reoptimised": [asdict(run) for run in reoptimised],
            "published_gpu_allocated_percent": {
                policy: {str(at): value for at, value in values.items()} for policy, values in table.items()
            },
        }
        click.echo(json.dumps(content, indent=2))
        return
    for line in _lines(workload, outcomes, reoptimised, table):
        click.echo(line)


def _progress(text: str) -> None:
    """One line that the next one replaces, where somebody watches."""
    if sys.stderr.isatty():
        click.echo(f"\r\033[K{text}", nl=False, err=True)


def _lines(
    workload: str,
    outcomes: Sequence[Outcome],
    reoptimised: Sequence[ReoptimisedReplay],
    table: Mapping[str, Mapping[int, float]],
) -> list[str]:
    """Ours and the published ones, the best first; then spread and speed."""
    lines = []
    for at in (100, 130):
        figures = [(values[at], f"published_{policy.lower()}") for policy, values in table.items()]
        figures += [(outcome.mean(at), f"mumian_{outcome.name}") for outcome in outcomes]
        if reoptimised:
            mean = fmean(run.allocated_percent[at] for run in reoptimised)
            figures.append((mean, "mumian_pack_reoptimised"))
        for value, name in sorted(figures, reverse=True):
            lines.append(f"openb_{workload}_allocated_at_{at}_{name} {value:.2f} %")
    for outcome in outcomes:
        name = f"openb_{workload}_mumian_{outcome.name}"
        lines.append(f"{name}_spread_at_130 {outcome.spread(130):.2f} points")
        lines.append(f"{name}_speed {outcome.speed():.0f} placements/s")
    if reoptimised:
        name = f"openb_{workload}_mumian_pack_reoptimised"
        lines.append(f"{name}_moves {median(run.moves for run in reoptimised):.0f} tasks")
        seconds = median(run.seconds / max(run.optimisations, 1) for run in reoptimised)
        lines.append(f"{name}_optimisation {seconds:.2f} s")
    return lines
