"""`mumian whoami`: who the coordinator takes you for."""

from __future__ import annotations

import click

from mumian.api.v1.access_pb2 import Role
from mumian.cli.json_output import print_json
from mumian.cli.session import Session, pass_session, shared_options


@click.command()
@shared_options
@pass_session
def whoami(session: Session) -> None:
    """Show who the coordinator takes you for: by token, or as anybody on its machine."""
    identity = session.client.identity()
    if session.json:
        print_json(identity)
        return
    names = [Role.Name(role).removeprefix("ROLE_").lower().replace("_", "-") for role in identity.roles]
    facts = [("name", identity.name), ("roles", ", ".join(names) or "none")]
    facts += [("tenant", identity.tenant_id), ("operator", identity.operator_id)]
    if identity.HasField("expire_time"):
        facts.append(("until", f"{identity.expire_time.ToDatetime():%Y-%m-%d %H:%M} UTC"))
    for name, value in facts:
        if value:
            session.console.print(f"{name:9} {value}", soft_wrap=True)
