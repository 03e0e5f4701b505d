"""`mumian voucher` and `mumian city`: the city's money and its yearly report."""

from __future__ import annotations

from pathlib import Path

import click

from mumian.api.v1.money_service_pb2 import ListVoucherFundsResponse
from mumian.cli.budget import funds_table
from mumian.cli.documents import show_document
from mumian.cli.json_output import print_json
from mumian.cli.session import Session, pass_session, shared_options


@click.group()
def voucher() -> None:
    """Vouchers: what a public programme pays of the rent."""


@voucher.command()
@shared_options
@pass_session
def show(session: Session) -> None:
    """Print the policies in force, as they were published."""
    show_document(session, "vouchers")


@voucher.command()
@shared_options
@pass_session
def funds(session: Session) -> None:
    """Show the pools, and what each enterprise has had of them. A fund appears with its first use."""
    found = session.client.voucher_funds()
    if session.json:
        print_json(ListVoucherFundsResponse(funds=found))
    elif found:
        session.console.print(funds_table(found, with_owner=True))
    else:
        session.console.print("no voucher has been used yet", style="dim")


@click.group()
def city() -> None:
    """For the city's administration."""


@city.command()
@click.option("--year", default="", metavar="YEAR", help="Default: this year.")
@click.option("--csv", "csv_file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE")
@click.option("--html", "html_file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE")
@shared_options
@pass_session
def report(session: Session, year: str, csv_file: Path | None, html_file: Path | None) -> None:
    """Write the report on a year: compute, use, PUE, large centres, vouchers, money.

    --html writes one page that needs nothing from elsewhere; without --csv and --html the CSV is printed.
    """
    made = session.client.city_report(year)
    if session.json:
        print_json(made)
        return
    for file, text in ((csv_file, made.csv), (html_file, made.html)):
        if file is not None:
            file.write_text(text, encoding="utf-8")
            click.echo(f"wrote {file}")
    if csv_file is None and html_file is None:
        click.echo(made.csv, nl=False)
