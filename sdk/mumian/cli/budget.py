"""`mumian budget`, and what a budget lacks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from mumian.api.v1.money_pb2 import Budget, Fund, Shortage
from mumian.cli import figures
from mumian.cli.json_output import print_json
from mumian.cli.param_types import LIMIT
from mumian.cli.session import Session, pass_session, shared_options

if TYPE_CHECKING:
    from rich.table import Table


@click.group()
def budget() -> None:
    """What a tenant may spend in a month and in a year."""


@budget.command()
@shared_options
@pass_session
def show(session: Session) -> None:
    """Show the tenant's budget, and what of it is reserved and spent."""
    found = session.client.budget()
    if session.json:
        print_json(found)
    else:
        _print(session, found)


@budget.command("set")
@click.argument("tenant_id", metavar="TENANT")
@click.option("--month", "month_microcny", type=LIMIT, help="For each month from now on.")
@click.option("--year", "year_microcny", type=LIMIT, help="For each year from now on.")
@shared_options
@pass_session
def set_(session: Session, tenant_id: str, month_microcny: int | None, year_microcny: int | None) -> None:
    """Limit what TENANT may spend. A limit that is left out stays as it is.

    Below what is spent and reserved already, nothing new starts, and nothing gets more time.
    """
    if month_microcny is None and year_microcny is None:
        raise click.UsageError("no limit is given; add --month CNY, --year CNY or both")
    made = session.client.set_budget(tenant_id, month_microcny=month_microcny, year_microcny=year_microcny)
    if session.json:
        print_json(made)
        return
    _print(session, made)
    for warning in _warnings(made):
        session.console.print(warning, soft_wrap=True)


@budget.command()
@click.argument("tenant_id", metavar="TENANT")
@click.option("--month", "month", is_flag=True, help="Only the limit of each month.")
@click.option("--year", "year", is_flag=True, help="Only the limit of each year.")
@shared_options
@pass_session
def remove(session: Session, tenant_id: str, month: bool, year: bool) -> None:
    """Take TENANT's budget away: nothing limits what it spends, nor how long its work runs.

    To stop the spending instead: `mumian budget set TENANT --month 0`.
    """
    made = session.client.remove_budget(tenant_id, month=month, year=year)
    if session.json:
        print_json(made)
    else:
        _print(session, made)


def _print(session: Session, shown: Budget) -> None:
    limits = [
        f"CNY {figures.exact_cny(microcny)} a {span}"
        for span, microcny in (("month", shown.month_microcny), ("year", shown.year_microcny))
        if shown.HasField("month_microcny" if span == "month" else "year_microcny")
    ]
    if not limits:
        session.console.print(
            f"tenant {shown.tenant_id} has no budget: nothing limits what it spends; "
            f"`mumian budget set {shown.tenant_id} --month CNY` sets one",
            soft_wrap=True,
        )
        return
    session.console.print(f"tenant {shown.tenant_id} may spend {' and '.join(limits)}", style="bold")
    if shown.funds:
        session.console.print()
        session.console.print(funds_table(shown.funds))


def _warnings(made: Budget) -> Iterator[str]:
    """Of the month and the year in which a limit was set that is below what they have given already."""
    limits = []
    if made.HasField("month_microcny"):
        limits.append((made.month_microcny, len("2026-11")))
    if made.HasField("year_microcny"):
        limits.append((made.year_microcny, len("2026")))
    for limit, length in limits:
        present = next(fund for fund in made.funds if len(fund.period) == length)  # newest first
        given = present.reserved_microcny + present.spent_microcny
        if given > limit:
            yield (
                f"CNY {figures.exact_cny(given)} of {present.period} are spent or reserved already: nothing "
                "new starts in it, and what runs gets no more time than is reserved for it"
            )


def funds_table(funds: Iterable[Fund], *, with_owner: bool = False) -> Table:
    """Of each period: granted = available + reserved + spent."""
    from mumian.cli.tables import table

    right = ("granted", "available", "reserved", "spent")
    made = table(*(("fund",) if with_owner else ()), "period", *right, right=right)
    for each in funds:
        made.add_row(
            *((each.owner,) if with_owner else ()),
            each.period,
            figures.fine_cny(each.granted_microcny),
            figures.fine_cny(each.available_microcny),
            figures.fine_cny(each.reserved_microcny),
            figures.fine_cny(each.spent_microcny),
        )
    return made


def lacking(session: Session, shortage: Shortage) -> str:
    """What money tasks wait for, and the command that would do."""
    limits = session.client.budget()
    options = [
        f"--{span} {figures.exact_cny(limit + missing)}"
        for span, limit, missing in (
            ("month", limits.month_microcny, shortage.month_top_up_microcny),
            ("year", limits.year_microcny, shortage.year_top_up_microcny),
        )
        if missing
    ]
    return (
        f"{shortage.summary}; a platform admin tops it up by "
        f"`mumian budget set {limits.tenant_id} {' '.join(options)}`"
    )
