"""`mumian statement` and `mumian refund`."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from mumian.api.v1.money_pb2 import Statement, StatementLine
from mumian.cli import figures
from mumian.cli.budget import funds_table
from mumian.cli.json_output import print_json
from mumian.cli.param_types import AMOUNT
from mumian.cli.session import Session, pass_session, shared_options

if TYPE_CHECKING:
    from rich.table import Table

_SHOWN_MAX = 50
_PARTS = ("rent", "energy", "carbon", "egress", "forgone", "voucher", "tenant")
_RARE = {"egress", "forgone", "voucher"}


@click.command()
@click.option("--period", default="", metavar="MONTH|YEAR", help="2026-11 or 2026; default: this month.")
@click.option(
    "--operator", "operator_id", metavar="NAME", help="What the sites of this operator have earned."
)
@click.option("--csv", "as_csv", is_flag=True, help="All lines as CSV, amounts in CNY.")
@shared_options
@pass_session
def statement(session: Session, period: str, operator_id: str | None, as_csv: bool) -> None:
    """Show the account of a month or a year: what each ended task cost, and who paid it.

    By default the tenant's, with --operator an operator's.
    """
    if operator_id is None:
        found = session.client.statement(period)
    else:
        found = session.client.operator_statement(operator_id, period)
    if session.json:
        print_json(found)
    elif as_csv:
        click.echo(_csv(found), nl=False)
    else:
        _print(session, found, is_operators=operator_id is not None)


def _print(session: Session, shown: Statement, *, is_operators: bool) -> None:
    of = "operator" if is_operators else "tenant"
    session.console.print(f"{of} {shown.party_id}, {shown.period}, in CNY", style="bold")
    if not shown.lines:
        session.console.print("no task that has ended was charged in this time", style="dim")
    else:
        session.console.print()
        session.console.print(_table(shown, is_operators=is_operators))
        left_out = max(0, len(shown.lines) - _SHOWN_MAX)
        if left_out:
            session.console.print(
                f"{figures.count(left_out, 'line')} not shown; the total has them all, and --csv too",
                style="dim",
            )
        session.console.print(_sum(shown.total, is_operators=is_operators), soft_wrap=True)
    if shown.funds:
        session.console.print()
        session.console.print(funds_table(shown.funds))


def _sum(total: StatementLine, *, is_operators: bool) -> str:
    cny = {part: figures.fine_cny(getattr(total, f"{part}_microcny")) for part in _PARTS}
    egress = f" + egress {cny['egress']}" if total.egress_microcny else ""
    borne = f" - borne by operators {cny['forgone']}" if total.forgone_microcny else ""
    if is_operators:
        earned = figures.fine_cny(_earned(total))
        return f"earned CNY {earned} = rent {cny['rent']} + energy {cny['energy']}{egress}{borne}"
    vouchers = f" - vouchers {cny['voucher']}" if total.voucher_microcny else ""
    return (
        f"to pay CNY {cny['tenant']} = rent {cny['rent']} + energy {cny['energy']} + carbon {cny['carbon']}"
        f"{egress}{vouchers}{borne}"
    )


def _earned(line: StatementLine) -> int:
    return line.rent_microcny + line.energy_microcny + line.egress_microcny - line.forgone_microcny


def _table(shown: Statement, *, is_operators: bool) -> Table:
    from mumian.cli.tables import table

    parts = [part for part in _PARTS[:-1] if part not in _RARE or any(_microcny(shown.lines, part))]
    words = ("borne" if part == "forgone" else part for part in parts)
    right = (*words, "earned" if is_operators else "to pay")
    made = table("time", "task", "site", *right, right=right, wrapped=("task",))

    def amounts(line: StatementLine) -> list[str]:
        last = _earned(line) if is_operators else line.tenant_microcny
        return [
            *(figures.fine_cny(getattr(line, f"{part}_microcny")) for part in parts),
            figures.fine_cny(last),
        ]

    for line in shown.lines[-_SHOWN_MAX:]:
        task = f"{line.allocation_id} ({line.reason})" if line.reason else line.allocation_id
        made.add_row(figures.moment(line.time)[:11], task, line.site_id, *amounts(line))
    made.add_section()
    made.add_row("all", "", "", *amounts(shown.total))
    return made


def _microcny(lines: Iterable[StatementLine], part: str) -> Iterator[int]:
    return (getattr(line, f"{part}_microcny") for line in lines)


def _csv(shown: Statement) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = ("entry", "time", "allocation", "tenant", "operator", "site", *(f"{part}_cny" for part in _PARTS))
    writer.writerow((*names, "reason"))
    for line in shown.lines:
        writer.writerow(
            (
                line.ledger_sequence,
                line.time.ToJsonString(),
                *(line.allocation_id, line.tenant_id, line.operator_id, line.site_id),
                *(figures.fine_cny(getattr(line, f"{part}_microcny")) for part in _PARTS),
                _harmless(line.reason),
            )
        )
    return out.getvalue()


def _harmless(cell: str) -> str:
    """A spreadsheet takes what begins so for a formula."""
    return f"'{cell}" if cell[:1] in ("=", "@", "+", "-", "\t") else cell


@click.command()
@click.argument("allocation_id", metavar="ALLOCATION")
@click.option("--cny", "microcny", type=AMOUNT, help="So much; default: all that is left of the charge.")
@click.option("--reason", required=True, metavar="TEXT", help="One line, for the account.")
@click.option(
    "--clawback", is_flag=True, help="Take back what vouchers have paid: the tenant owes it instead."
)
@click.option("--request-id", metavar="ID", help="The same one again changes nothing.")
@shared_options
@pass_session
def refund(
    session: Session,
    allocation_id: str,
    microcny: int | None,
    reason: str,
    clawback: bool,
    request_id: str | None,
) -> None:
    """Give back what an ended task was charged, by a counter-entry. `mumian statement` lists the tasks."""
    line = session.client.refund(
        allocation_id, microcny or 0, reason=reason, clawback=clawback, request_id=request_id
    )
    if session.json:
        print_json(line)
    elif not line.tenant_microcny and not line.voucher_microcny:
        click.echo(
            f"nothing has changed: entry {line.ledger_sequence} of the ledger has this request already"
        )
    elif clawback:
        click.echo(
            f"CNY {figures.exact_cny(line.tenant_microcny)} of vouchers taken back, the tenant owes it "
            f"(entry {line.ledger_sequence} of the ledger)"
        )
    else:
        click.echo(
            f"CNY {figures.exact_cny(-line.tenant_microcny)} given back to the tenant, "
            f"CNY {figures.exact_cny(-line.voucher_microcny)} to vouchers "
            f"(entry {line.ledger_sequence} of the ledger)"
        )
