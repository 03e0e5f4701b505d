"""`mumian documents`: price lists, and what the city publishes about money."""

from __future__ import annotations

from pathlib import Path

import click

from mumian.api.v1.money_service_pb2 import ListMoneyDocumentsResponse
from mumian.cli import figures
from mumian.cli.json_output import print_json, print_json_line
from mumian.cli.session import Session, pass_session, shared_options
from mumian.errors import MumianError


@click.group()
def documents() -> None:
    """Price lists of operators; vouchers, registry and ceilings of PUE of the city."""


@documents.command()
@click.argument(
    "files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path, dir_okay=False)
)
@shared_options
@pass_session
def apply(session: Session, files: tuple[Path, ...]) -> None:
    """Publish each FILE (YAML). It replaces the document of its kind; of `offers`, of its operator.

    docs/money.md says what may stand in them; examples are in examples/money/.
    """
    for file in files:
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "is no text in UTF-8"
            raise MumianError("INVALID_FIELD", f"{file} cannot be read: {reason}") from None
        try:
            made = session.client.apply_money_document(text)
        except MumianError as error:
            told = "; ".join(each.description for each in error.field_violations) or error.message
            raise MumianError(
                error.reason, f"{file}: {told}", error.field_violations, error.metadata
            ) from None
        if session.json:
            print_json_line(made)
        else:
            click.echo(f"{made.name} is version {made.version}, by {file}")


@documents.command("list")
@shared_options
@pass_session
def list_(session: Session) -> None:
    """List what is published, as far as you may see it."""
    found = session.client.money_documents()
    if session.json:
        print_json(ListMoneyDocumentsResponse(documents=found))
        return
    from mumian.cli.tables import table

    if not found:
        session.console.print("nothing is published; `mumian documents apply FILE` does it", style="dim")
        return
    made = table("document", "version", "applied", "KiB", right=("version", "KiB"))
    for each in found:
        kib = f"{len(each.text.encode()) / 1024:.1f}"
        made.add_row(each.name, str(each.version), figures.moment(each.apply_time)[:14], kib)
    session.console.print(made)


@documents.command()
@click.argument("name", metavar="DOCUMENT")
@shared_options
@pass_session
def show(session: Session, name: str) -> None:
    """Print a document as it was published: vouchers, registry, pue or offers/OPERATOR."""
    show_document(session, name)


def show_document(session: Session, name: str) -> None:
    """Its text, or an error that names those that there are."""
    found = {each.name: each for each in session.client.money_documents()}
    if name not in found:
        known = f"published are {', '.join(found)}" if found else "nothing is published"
        raise MumianError("INVALID_FIELD", f"document ({name}) is not published; {known}")
    if session.json:
        print_json(found[name])
    else:
        click.echo(found[name].text, nl=not found[name].text.endswith("\n"))
