"""`mumian secret`: what tasks need and nobody is to see."""

from __future__ import annotations

import sys
from typing import BinaryIO

import click

from mumian.api.v1.secret_service_pb2 import ListSecretsResponse
from mumian.cli import figures
from mumian.cli.json_output import print_json
from mumian.cli.session import Session, pass_session, shared_options
from mumian.errors import MumianError


@click.group()
def secret() -> None:
    """Secrets of the tenant: set once, named by jobs, shown to nobody."""


@secret.command("set")
@shared_options
@click.argument("name")
@click.option(
    "--file", type=click.File("rb"), help="With the value as it is; default: standard input, one newline cut."
)
@pass_session
def set_secret(session: Session, name: str, file: BinaryIO | None) -> None:
    """Make a secret, or give it a new value, which tasks that start later have."""
    stored = session.client.put_secret(name, file.read() if file else _typed(name))
    if session.json:
        print_json(stored)
        return
    click.echo(f"secret {stored.name} is set; a job has it by `secrets: {{VARIABLE: {stored.name}}}`")


@secret.command("list")
@shared_options
@pass_session
def list_secrets(session: Session) -> None:
    """List the secrets, without their values."""
    found = list(session.client.secrets())
    if session.json:
        print_json(ListSecretsResponse(secrets=found))
        return
    from mumian.cli.tables import table

    made = table("name", "made", "value set", "by")
    for each in found:
        dates = figures.date(each.create_time), figures.date(each.update_time)
        made.add_row(each.name, *dates, each.updated_by)
    session.console.print(made)


@secret.command("delete")
@shared_options
@click.argument("name")
@pass_session
def delete_secret(session: Session, name: str) -> None:
    """Forget a secret that no job names any more."""
    session.client.delete_secret(name)
    if not session.json:
        click.echo(f"secret {name} is deleted")


def _typed(name: str) -> bytes:
    """From a pipe; at a terminal asked for, unseen.

    Raises:
        MumianError: nothing came.
    """
    if sys.stdin.isatty():
        return str(click.prompt(f"value of {name}", hide_input=True, err=True)).encode()
    value = sys.stdin.buffer.read().removesuffix(b"\n").removesuffix(b"\r")
    if not value:
        raise MumianError("INVALID_FIELD", f"value of {name} is empty; pipe it in, or give --file")
    return value
