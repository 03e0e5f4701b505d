"""`mumian optimize` and `mumian what-if`: for whoever runs the platform."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mumian import quantities
from mumian.api.v1.planning_pb2 import (
    AddNodes,
    AddSite,
    Arrangement,
    FleetChange,
    SetLink,
    SetPrice,
    SetPue,
    SetSlo,
)
from mumian.cli import figures, words
from mumian.cli.json_output import print_json
from mumian.cli.param_types import Figure
from mumian.cli.session import Session, pass_session, shared_options

if TYPE_CHECKING:
    from rich.table import Table

    from mumian.api.v1.planning_service_pb2 import OptimizeFleetResponse, WhatIfResponse

_TIME_LIMIT_DEFAULT = "1s"
_SHOWN_MAX = 20
# Prices are the slope of a bound that was found in limited time; what is less than this is noise.
_PRICE_MICROCNY_MIN = 1000
Function = TypeVar("Function", bound=Callable[..., Any])
_UNITS = {"cpu": "core", "memory": "GiB"}


class _Change(click.ParamType[FleetChange]):
    """`WHAT=HOW` as a change of the fleet."""

    def __init__(self, name: str, form: str, build: Callable[[re.Match[str]], FleetChange]) -> None:
        self.name, self._form, self._build = name, re.compile(form), build

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> FleetChange:
        if isinstance(value, FleetChange):
            return value
        match = self._form.fullmatch(str(value))
        if match is None:
            self.fail(f"({value}) must be {self.name}", param, ctx)
        try:
            return self._build(match)
        except ValueError as error:
            self.fail(f"({value}) {error}", param, ctx)


def _pue(match: re.Match[str]) -> FleetChange:
    average, marginal = quantities.pue_permille(match[2]), match[3]
    change = SetPue(site_id=match[1], average_permille=average)
    if marginal:
        change.marginal_permille = quantities.pue_permille(marginal)
    return FleetChange(set_pue=change)


def _price(match: re.Match[str]) -> FleetChange:
    microcny = 0 if float(match[3]) == 0 else quantities.money_microcny(match[3])
    return FleetChange(set_price=SetPrice(site_id=match[1], what=match[2], microcny=microcny))


_CHANGES = (
    ("--drain", _Change("SITE", r"(\S+)", lambda m: FleetChange(drain_site_id=m[1])), "Empty a site."),
    ("--lose", _Change("SITE", r"(\S+)", lambda m: FleetChange(lose_site_id=m[1])), "Lose a site."),
    (
        "--add-site",
        _Change(
            "NEW=SITE",
            r"([^\s=]+)=(\S+)",
            lambda m: FleetChange(add_site=AddSite(site_id=m[1], like_site_id=m[2])),
        ),
        "Add a site like one that is there; other options may change it: west=gz-nansha --pue west=1.15.",
    ),
    (
        "--add-nodes",
        _Change(
            "NODE=COUNT",
            r"(\S+)=(\d{1,9})",
            lambda m: FleetChange(add_nodes=AddNodes(like_node_id=m[1], count=int(m[2]))),
        ),
        "Add nodes like one that is there: gz-nansha/n1=4.",
    ),
    (
        "--pue",
        _Change("SITE=PUE", r"([^\s=]+)=([^\s/]+)(?:/(\S+))?", _pue),
        "Another PUE: gz-nansha=1.2; average/marginal: gz-nansha=1.2/1.1.",
    ),
    (
        "--price",
        _Change("SITE.WHAT=CNY", r"([^\s.=]+)\.([^\s=]+)=(\d+(?:\.\d+)?)", _price),
        "Another price, CNY for an hour of a core (cpu), a GiB (memory) or a device (its model), for a kWh "
        "(energy) or a GiB sent (egress): gz-nansha.energy=0.45.",
    ),
    (
        "--rtt",
        _Change(
            "FROM:SITE=RTT",
            r"([^\s:]+):([^\s=]+)=(\S+)",
            lambda m: FleetChange(
                set_link=SetLink(from_id=m[1], to_site_id=m[2], rtt_p99_us=quantities.duration_us(m[3]))
            ),
        ),
        "Another round-trip time p99 from a zone or site: tianhe:gz-nansha=8ms.",
    ),
    (
        "--bandwidth",
        _Change(
            "ZONE:SITE=RATE",
            r"([^\s:]+):([^\s=]+)=(\S+)",
            lambda m: FleetChange(
                set_link=SetLink(
                    from_id=m[1], to_site_id=m[2], bandwidth_kbps=quantities.bandwidth_kbps(m[3])
                )
            ),
        ),
        "Another bandwidth of a link: tianhe:gz-nansha=10Gbit/s.",
    ),
    (
        "--slo",
        _Change(
            "JOB=BUDGET",
            r"([^\s=]+)=(\S+)",
            lambda m: FleetChange(set_slo=SetSlo(job_id=m[1], budget_us=quantities.duration_us(m[2]))),
        ),
        "Another latency budget of a job: vr-2f41=30ms.",
    ),
)


def _search_options(function: Function) -> Function:
    """How long the optimiser looks, and how much it may move."""
    whole = Figure("NUMBER", quantities.WholeNumber(0, 1_000_000))
    for option in (
        click.option(
            "--time-limit",
            "time_limit_ms",
            type=Figure("DURATION", quantities.duration_ms),
            default=_TIME_LIMIT_DEFAULT,
            help="For each search of the optimiser, at most 5s.",
        ),
        click.option("--moves", "moves_max", type=whole, help="Most services that may move."),
    ):
        function = option(function)
    return function


@click.command()
@click.option("--dry-run", is_flag=True, help="Only show what would move.")
@_search_options
@shared_options
@pass_session
def optimize(session: Session, dry_run: bool, time_limit_ms: int, moves_max: int | None) -> None:
    """Look at all jobs together, and move services to where they cost less.

    Each service starts at its new place before it stops at the old one.
    """
    answer = session.client.optimize_fleet(
        dry_run=dry_run, moves_max=moves_max, time_limit_ms=_at_most_5_s(time_limit_ms)
    )
    if session.json:
        print_json(answer)
        return
    session.console.print(_totals({"as it runs": answer.as_it_runs, "best found": answer.found}))
    _print_proof(session, answer.found)
    _print_moves(session, answer, dry_run=dry_run)


def _with_changes(function: Function) -> Function:
    for option, kind, told in reversed(_CHANGES):
        name = option.removeprefix("--").replace("-", "_")
        function = click.option(
            option, name, type=kind, metavar=kind.name, multiple=True, help=f"{told} May be given again."
        )(function)
    return function


@click.command("what-if")
@_with_changes
@_search_options
@shared_options
@pass_session
def what_if(
    session: Session, /, time_limit_ms: int, moves_max: int | None, **changes: Sequence[FleetChange]
) -> None:
    """Show how the fleet would fare after a change. Nothing happens.

    Compares what runs, the best that the optimiser finds as things are, what would be left if nobody did
    anything, and the best that it finds after the change.
    """
    asked = [change for given in changes.values() for change in given]
    # Whatever the order of the options: what is new may be named by the others.
    asked.sort(key=lambda change: not change.HasField("add_site"))
    if not asked:
        raise click.UsageError(
            f"no change is given; add one of {', '.join(option for option, _, _ in _CHANGES)}"
        )
    answer = session.client.what_if(asked, moves_max=moves_max, time_limit_ms=_at_most_5_s(time_limit_ms))
    if session.json:
        print_json(answer)
        return
    session.console.print(
        _totals(
            {
                "as it runs": answer.as_it_runs,
                "best now": answer.best_before,
                "left alone after": answer.left_alone,
                "best after": answer.best_after,
            }
        )
    )
    session.console.print(_difference(answer.best_before, answer.best_after), style="bold")
    session.console.print()
    session.console.print(_sites(answer))
    _print_proof(session, answer.best_after)
    _print_affected(session, answer)
    session.console.print("nothing of this has happened", style="dim")


def _at_most_5_s(time_limit_ms: int) -> int:
    if time_limit_ms > 5000:
        raise click.UsageError(f"--time-limit ({time_limit_ms} ms) must be at most 5s")
    return time_limit_ms


def _totals(arrangements: dict[str, Arrangement]) -> Table:
    from mumian.cli.tables import table

    made = table("", *arrangements, right=tuple(arrangements))
    shown = arrangements.values()
    made.add_row("tasks with a place", *(str(a.placed_task_count) for a in shown))
    made.add_row("tasks without a place", *(str(a.unplaced_task_count) for a in shown))
    made.add_row("broken promises", *(str(a.broken_promise_count) for a in shown))
    made.add_row("tasks that move", *(str(a.moved_task_count) for a in shown))
    made.add_row("CNY/h", *(figures.cny(a.cost_microcny_per_hour) for a in shown))
    powers_mw = [sum(share.facility_power_mw for share in a.sites) for a in shown]
    if any(powers_mw):
        made.add_row("kW at the meters", *map(_kilowatts, powers_mw))
    proved = [
        figures.cny(a.proof.bound_microcny_per_hour) if _is_proved(a) else figures.UNKNOWN for a in shown
    ]
    made.add_row("CNY/h, proven least", *proved)
    made.add_row("could be saved, at most", *(_gap(a) for a in shown))
    return made


def _is_proved(arrangement: Arrangement) -> bool:
    """With tasks left out, or with promises that hold nowhere, the bound counts more than money."""
    left_out = arrangement.unplaced_task_count or arrangement.broken_promise_count
    return arrangement.HasField("proof") and not left_out


def _gap(arrangement: Arrangement) -> str:
    return f"{arrangement.proof.gap_ppm / 10_000:.2f} %" if arrangement.HasField("proof") else figures.UNKNOWN


def _difference(before: Arrangement, after: Arrangement) -> str:
    """What the change comes to, in one sentence."""
    microcny = after.cost_microcny_per_hour - before.cost_microcny_per_hour
    money = (
        f"costs CNY {figures.cny(microcny)} more" if microcny > 0 else f"saves CNY {figures.cny(-microcny)}"
    )
    told = [
        f"at its best, the fleet {money} an hour" if microcny else "at its best, the fleet costs the same"
    ]
    left_out = after.unplaced_task_count - before.unplaced_task_count
    if left_out > 0:
        told.append(f"{figures.count(left_out, 'task')} more without a place")
    elif left_out < 0:
        told.append(f"{figures.count(-left_out, 'task')} more with a place")
    broken = after.broken_promise_count - before.broken_promise_count
    if broken > 0:
        told.append(f"{figures.count(broken, 'promise')} more broken")
    return "after the change: " + ", ".join(told)


def _sites(answer: WhatIfResponse) -> Table:
    from mumian.cli.tables import table

    right = ("tasks now", "after", "CNY/h now", "after ", "kW now", "after  ")
    made = table("site", *right, right=right)
    before, after = ({s.site_id: s for s in a.sites} for a in (answer.as_it_runs, answer.best_after))
    for site_id in sorted(before.keys() | after.keys()):
        pair = [arrangement.get(site_id) for arrangement in (before, after)]
        made.add_row(
            site_id,
            *(str(share.task_count) if share else "0" for share in pair),
            *(figures.cny(share.cost_microcny_per_hour if share else 0) for share in pair),
            *(_kilowatts(share.facility_power_mw if share else 0) for share in pair),
        )
    return made


def _print_proof(session: Session, arrangement: Arrangement) -> None:
    """The bound and the shadow prices in words."""
    console, proof = session.console, arrangement.proof
    console.print()
    if _is_proved(arrangement):
        least = figures.cny(proof.bound_microcny_per_hour)
        console.print(
            f"proven: no arrangement of these tasks costs less than CNY {least} an hour; "
            f"at most {_gap(arrangement)} of the best found could be saved"
        )
    worth = [price for price in proof.prices if price.saves_microcny_per_hour >= _PRICE_MICROCNY_MIN]
    prices = sorted(worth, key=lambda price: -price.saves_microcny_per_hour)
    for price in prices[:_SHOWN_MAX]:
        unit = _UNITS.get(price.resource, price.resource)
        saves = figures.short_cny(price.saves_microcny_per_hour)
        console.print(f"one more {unit} at site {price.site_id} would save CNY {saves} an hour")
    if prices and arrangement.unplaced_task_count:
        console.print("(a task without a place counts as dearer than any place)", style="dim")
    if arrangement.HasField("proof") and not prices:
        console.print(
            "a little more of anything would place none of the tasks that wait: see what --add-nodes would do"
            if arrangement.unplaced_task_count
            else "no site is short of anything: more of it would save nothing"
        )
    console.print()


def _print_moves(session: Session, answer: OptimizeFleetResponse, *, dry_run: bool) -> None:
    from mumian.cli.tables import table

    console = session.console
    if not answer.moves:
        console.print("nothing moves: everything is where it had better be", style="green")
        return
    made = table("allocation", "from", "to", "saves CNY/h", "", right=("saves CNY/h",), wrapped=("",))
    for move in answer.moves[:_SHOWN_MAX]:
        saves = figures.cny(move.saves_microcny_per_hour)
        told = f"held back: {move.held_back}" if move.held_back else "" if dry_run else "moves now"
        made.add_row(move.allocation_id, move.from_node_id, move.to_node_id, saves, told)
    console.print(made)
    if len(answer.moves) > _SHOWN_MAX:
        console.print(f"and {len(answer.moves) - _SHOWN_MAX} more; -o json has all", style="dim")
    if dry_run:
        console.print("nothing has moved; `mumian optimize` moves them", style="dim")
    else:
        console.print("each starts at its new place before it stops at the old one", style="dim")


def _print_affected(session: Session, answer: WhatIfResponse) -> None:
    from mumian.cli.tables import table

    if not answer.affected:
        return
    made = table("task", "was on", "why it cannot stay", "would go to", wrapped=("why it cannot stay",))
    # Those that find no place first.
    affected = sorted(answer.affected, key=lambda task: (bool(task.to_node_id), task.job_id, task.task_index))
    for task in affected[:_SHOWN_MAX]:
        why = (
            f"{words.filter_name(task.broken.filter)}: {task.broken.reason}"
            if task.HasField("broken")
            else ""
        )
        name = f"{task.job_id}.{task.task_group}.{task.task_index}"
        goes = task.to_node_id or ("stays, with its promise broken" if why else "nowhere: no place")
        made.add_row(name, task.node_id, why or "its site is emptied", goes)
    session.console.print(made)
    if len(affected) > _SHOWN_MAX:
        session.console.print(f"and {len(affected) - _SHOWN_MAX} more; -o json has all", style="dim")


def _kilowatts(mw: int) -> str:
    return f"{mw / 1e6:.3f}"
