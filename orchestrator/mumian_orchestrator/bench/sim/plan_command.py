"""`mumian-bench plan-capacity`: where to build next."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.status import Status
from rich.table import Table

from mumian_orchestrator.bench.sim.arrivals import Arrival
from mumian_orchestrator.bench.sim.command import HOURS, SCALE, SCENARIO, SHORT, BadInputError, form
from mumian_orchestrator.bench.sim.fields import ScenarioError
from mumian_orchestrator.bench.sim.planning import Link, Nodes, Planner, Worth, demand
from mumian_orchestrator.bench.sim.policies import policy
from mumian_orchestrator.bench.sim.record import Record, machine
from mumian_orchestrator.bench.sim.scenario import Scenario, load

_MICROCNY = 1_000_000
# Classes of nodes that are tried for new demand, for each proposal that is wanted.
_WAYS_TRIED = 3


@click.command("plan-capacity")
@SCENARIO
@click.option(
    "--demand", "demands", multiple=True, help="New tasks: CLASS=COUNT or CLASS=COUNT@ZONE; repeatable."
)
@click.option(
    "--top", type=click.IntRange(1, 20), default=3, show_default=True, help="Proposals to check of a kind."
)
@click.option("--rack", type=click.IntRange(2, 1000), default=16, show_default=True, help="Nodes of a rack.")
@click.option("--seed", type=int, help="Default: the scenario's.")
@SHORT
@HOURS
@SCALE
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def plan_capacity(
    path: Path,
    demands: tuple[str, ...],
    top: int,
    rack: int,
    seed: int | None,
    short: bool,
    hours: float | None,
    scale: float | None,
    output: str,
) -> None:
    """Where the next node, rack or link pays most at the scenario's busiest moment: shadow prices, checked
    by arranging all anew with it, and by running the whole scenario with it. With --demand also how many
    nodes it takes to serve that demand.
    """
    console = Console(stderr=True)
    try:
        policy("ours")
        scenario = form(load(path), short=short, hours=hours, scale=scale)
        used_seed = scenario.seed if seed is None else seed
        more = [task for text in demands for task in demand(scenario, text)]
        more = [task._replace(number=-1 - n) for n, task in enumerate(more)]
        with console.status(f"{scenario.name}, seed {used_seed}") as status:
            answer = _answer(scenario, used_seed, more, top, rack, status)
    except ScenarioError as error:
        raise BadInputError(str(error)) from error
    if output == "json":
        click.echo(json.dumps(answer, indent=1))
    else:
        _print(answer, Console())


def _answer(
    scenario: Scenario, seed: int, more: Sequence[Arrival], top: int, rack: int, status: Status
) -> dict[str, object]:
    planner = Planner(scenario, seed, more)
    best = planner.moment.best
    proposals = []
    status.update("prices of nodes and links")
    nodes = planner.nodes(1)
    for kind, worths in (("node", nodes), ("rack", planner.nodes(rack)), ("link", planner.links())):
        checked = []
        for worth in worths[:top]:
            status.update(f"checking {worth.addition}")
            checked.append(planner.check(worth))
        for worth in sorted(checked, key=lambda w: (-w.placed_more, -w.realised_cny_per_hour)):
            status.update(f"running all with {worth.addition}")
            what = _named(scenario, worth.addition)
            proposals.append(_told(kind, what, worth, planner.before, planner.rerun(worth.addition)))
    answer: dict[str, object] = {
        "scenario": scenario.name,
        "seed": seed,
        "machine": machine(),
        "at_h": planner.moment.at_s / 3600,
        "running": len(planner.moment.running),
        "waiting": len(planner.moment.waiting),
        "without_a_place_at_best": best.found.unplaced_task_count,
        "cny_per_hour_at_best": round(best.found.cost_microcny_per_hour / _MICROCNY, 2),
        "prices": [
            {"site": p.site_id, "resource": p.resource, "cny_per_hour": p.microcny_per_hour / _MICROCNY}
            for p in sorted(planner.moment.best_of_housed.prices, key=lambda p: -p.microcny_per_hour)
            if p.microcny_per_hour > 0
        ][:20],
        "sites_without_room": planner.full_sites(),
        "proposals": proposals,
    }
    if more:
        answer["demand"] = {
            "tasks": len(more),
            "ways": _ways(scenario, planner, nodes, _WAYS_TRIED * top, status),
        }
    return answer


def _named(scenario: Scenario, addition: Nodes | Link) -> str:
    """An addition, with what a machine of it is."""
    if isinstance(addition, Link):
        return str(addition)
    site = next(site for site in scenario.sites if site.id == addition.site_id)
    return f"{addition}: {site.nodes[addition.node_class]}"


def _ways(
    scenario: Scenario, planner: Planner, nodes: Sequence[Worth], most: int, status: Status
) -> list[dict[str, object]]:
    """For each class of nodes that helps: how many it takes that all tasks have a place. Where none has room
    for enough: several together.
    """
    if not planner.moment.best.found.unplaced_task_count:
        cost = planner.moment.best.found.cost_microcny_per_hour / _MICROCNY
        return [{"what": "what there is", "nodes": 0, "cny_per_hour": round(cost, 2)}]
    ways = []
    for worth in nodes[:most]:
        assert isinstance(worth.addition, Nodes)
        status.update(f"how many nodes at {worth.addition.site_id}")
        found = planner.least_nodes(worth.addition.site_id, worth.addition.node_class)
        if found is not None:
            enough = dataclasses.replace(worth.addition, count=found[0])
            what = _named(scenario, enough)
            ways.append({"what": what, "nodes": found[0], "cny_per_hour": round(found[1], 2)})
    if not ways:
        status.update("nodes at several sites")
        mixed = planner.mix(nodes)
        if mixed is not None:
            chosen, cost = mixed
            what = "; ".join(_named(scenario, each) for each in chosen)
            ways.append({"what": what, "nodes": sum(n.count for n in chosen), "cny_per_hour": round(cost, 2)})
    return sorted(ways, key=lambda way: (way["nodes"], way["cny_per_hour"]))


def _told(kind: str, what: str, worth: Worth, before: Record, after: Record) -> dict[str, object]:
    def change(name: str) -> float:
        return float(str(after.figures[name])) - float(str(before.figures[name]))

    return {
        "kind": kind,
        "what": what,
        "predicted_cny_per_hour": round(worth.predicted_cny_per_hour, 4),
        "realised_cny_per_hour": round(worth.realised_cny_per_hour, 4),
        "tasks_placed_more": worth.placed_more,
        "over_the_run": {
            "cny": round(change("cny"), 2),
            "starts": round(change("starts")),
            "waiting_at_end": round(change("waiting_at_end")),
            "wait_mean_s": round(change("wait_mean_s"), 2),
            "inside_slo": round(change("inside_slo"), 6),
        },
    }


def _print(answer: Mapping[str, object], console: Console) -> None:
    console.print(
        f"{answer['scenario']}, seed {answer['seed']}: busiest at hour {answer['at_h']:.2f}, "
        f"{answer['running']} tasks run and {answer['waiting']} wait. Arranged at best, "
        f"{answer['without_a_place_at_best']} have no place; the rest costs "
        f"{answer['cny_per_hour_at_best']} CNY an hour."
    )
    full = answer["sites_without_room"]
    assert isinstance(full, list)
    if full:
        console.print(f"One more node would pay at {', '.join(full)}, which have no room for any.")
    proposals = answer["proposals"]
    assert isinstance(proposals, list)
    if not proposals:
        console.print(
            "Nothing pays: no resource is short where somebody wants it, and no shorter link saves anything."
        )
    else:
        table = Table(
            "", "what", "predicted, CNY/h", "realised, CNY/h", "tasks more", "the whole run with it"
        )
        for entry in proposals:
            run = entry["over_the_run"]
            table.add_row(
                entry["kind"],
                entry["what"],
                f"{entry['predicted_cny_per_hour']:,.2f}",
                f"{entry['realised_cny_per_hour']:,.2f}",
                str(entry["tasks_placed_more"]),
                f"{run['cny']:+,.2f} CNY, {run['starts']:+d} starts, {run['wait_mean_s']:+.1f} s wait, "
                f"{100 * run['inside_slo']:+.2f} points SLO",
            )
        console.print(table)
        console.print(
            "Saved on the tasks that have a place anyway. Predicted: shadow prices x what a node has, or by "
            "how much the proven bound falls with the link; the first core saves most, so many save at most "
            "that. Realised: the best arrangement of the busiest moment with it. What the nodes and links "
            "themselves cost is not counted."
        )
    if "demand" in answer:
        wanted = answer["demand"]
        assert isinstance(wanted, dict)
        table = Table(
            "to serve all", "nodes", "CNY/h for all that runs", title=f"{wanted['tasks']} tasks more"
        )
        for way in wanted["ways"]:
            table.add_row(way["what"], str(way["nodes"]), f"{way['cny_per_hour']:,.2f}")
        if not wanted["ways"]:
            table.add_row("no number of nodes for which there is room", "-", "-")
        console.print(table)
    console.print(str(answer["machine"]))
