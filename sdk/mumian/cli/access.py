"""`mumian token`, `site-token`, `site` and `audit`: who may come in, and what was recorded.

The same commands are `mumian-coordinator`'s, on the coordinator's own machine; there another connection and
other options go with them, so the groups are made for a set of options.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
from google.protobuf.timestamp_pb2 import Timestamp

from mumian.api.v1.access_pb2 import Role
from mumian.api.v1.access_service_pb2 import (
    ListApiTokensResponse,
    ListEnrolledSitesResponse,
    ReadAuditLogResponse,
)
from mumian.cli import figures
from mumian.cli.json_output import print_json
from mumian.cli.session import Session, pass_session, shared_options

_DAY_S = 86_400
_ROLES = {
    name.removeprefix("ROLE_").lower().replace("_", "-"): value for name, value in Role.items() if value
}
_NAMES = {value: name for name, value in _ROLES.items()}


class AccessGroups(NamedTuple):
    """The groups of commands."""

    token: click.Group
    site_token: click.Group
    site: click.Group
    audit: click.Group


def access_groups(options: Callable[[Any], Any]) -> AccessGroups:
    """The commands with these options."""
    return AccessGroups(_token(options), _site_token(options), _site(options), _audit(options))


def _token(options: Callable[[Any], Any]) -> click.Group:
    @click.group()
    def token() -> None:
        """API tokens of people and programs."""

    @token.command()
    @options
    @click.option("--role", required=True, type=click.Choice(list(_ROLES)))
    @click.option("--operator", default="", metavar="NAME", help="Of the role operator.")
    @click.option("--title", default="", metavar="TEXT", help="What it is for; default: the role.")
    @click.option("--days", type=click.IntRange(1, 366), default=90, show_default=True, help="Of its life.")
    @pass_session
    def create(session: Session, role: str, operator: str, title: str, days: int) -> None:
        """Make a token, and print it: once, for only its hash is kept. --tenant says whose it is."""
        made = session.client.create_api_token(
            _ROLES[role],
            title or role,
            tenant_id=session.tenant or "",
            operator_id=operator,
            lifetime_s=days * _DAY_S,
        )
        if session.json:
            print_json(made)
        else:
            click.echo(f"token {made.token.id} expires {figures.date(made.token.expire_time)}", err=True)
            click.echo(made.secret)

    @token.command("list")
    @options
    @pass_session
    def list_them(session: Session) -> None:
        """The tokens that you may manage, with those that have expired or were revoked."""
        tokens = list(session.client.api_tokens())
        if session.json:
            print_json(ListApiTokensResponse(tokens=tokens))
            return
        now = Timestamp()
        now.GetCurrentTime()
        rows = [("id", "role", "of", "expires", "state", "title")]
        for each in tokens:
            is_over = each.expire_time.seconds <= now.seconds
            state = "revoked" if each.HasField("revoke_time") else "expired" if is_over else "good"
            of = each.tenant_id or each.operator_id or "-"
            rows.append(
                (each.id, _NAMES.get(each.role, "?"), of, figures.date(each.expire_time), state, each.title)
            )
        _print_table(rows)

    @token.command()
    @click.argument("token_id")
    @options
    @pass_session
    def revoke(session: Session, token_id: str) -> None:
        """End a token now, and what is open by it."""
        revoked = session.client.revoke_api_token(token_id)
        if session.json:
            print_json(revoked)
        else:
            click.echo(f"revoked token {token_id}")

    return token


def _site_token(options: Callable[[Any], Any]) -> click.Group:
    @click.group("site-token")
    def site_token() -> None:
        """One-use tokens by which agents join."""

    @site_token.command()
    @click.argument("site_id", metavar="SITE")
    @options
    @click.option("--operator", default="", metavar="NAME", help="Whose site; default: your own operator.")
    @pass_session
    def create(session: Session, site_id: str, operator: str) -> None:
        """Make a token for one agent to join as SITE, within 15 minutes, and print it."""
        made = session.client.create_site_token(site_id, operator_id=operator)
        if session.json:
            print_json(made)
            return
        click.echo(
            f"good until {figures.date(made.expire_time)}, once; on the site: "
            "mumian-agent join --config site.yaml --coordinator HOST:PORT --token-file FILE",
            err=True,
        )
        click.echo(made.secret)

    return site_token


def _site(options: Callable[[Any], Any]) -> click.Group:
    @click.group()
    def site() -> None:
        """The sites that may connect."""

    @site.command("list")
    @options
    @pass_session
    def list_them(session: Session) -> None:
        """The sites that have joined, and those that were revoked."""
        sites = list(session.client.enrolled_sites())
        if session.json:
            print_json(ListEnrolledSitesResponse(sites=sites))
            return
        rows = [("site", "operator", "joined", "certificate until", "state", "key (SHA-256)")]
        for each in sites:
            state = "revoked" if each.HasField("revoke_time") else "good"
            dates = (figures.date(each.join_time), figures.date(each.certificate_expire_time))
            rows.append((each.site_id, each.operator_id or "-", *dates, state, each.key_sha256[:16]))
        _print_table(rows)

    @site.command()
    @click.argument("site_id", metavar="SITE")
    @options
    @pass_session
    def revoke(session: Session, site_id: str) -> None:
        """Keep SITE out from now on: its stream ends, and its key is refused."""
        revoked = session.client.revoke_site(site_id)
        if session.json:
            print_json(revoked)
        else:
            known = "" if revoked.HasField("join_time") else ", which has never joined"
            click.echo(f"revoked site {site_id}{known}; a new site-token lets it join again")

    return site


def _audit(options: Callable[[Any], Any]) -> click.Group:
    @click.group()
    def audit() -> None:
        """The log of who changed what, and who was refused."""

    @audit.command()
    @click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
    @options
    @pass_session
    def export(session: Session, file: Path) -> None:
        """Write the log to FILE, one entry a line, and print what its newest entry is known by."""
        scratch = file.with_name(f"{file.name}.partial")
        last = ReadAuditLogResponse()
        try:
            with scratch.open("wb") as entries:
                for last in session.client.audit_log():
                    entries.writelines(line + b"\n" for line in last.entries)
            scratch.replace(file)
        finally:
            scratch.unlink(missing_ok=True)
        head = f"{last.head_number}:{last.head_sha256}"
        click.echo(f"{last.head_number} entries in {file}; keep this elsewhere: --head {head}")
        if not last.head_number:
            click.echo("nothing is listed while access control is off")

    return audit


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


token, site_token, site, audit = access_groups(shared_options)
