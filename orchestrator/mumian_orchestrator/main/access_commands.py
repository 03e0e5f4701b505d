"""`mumian-coordinator token`, `site-token`, `site` and `audit`: who may come in, and what was recorded.

The commands ask the coordinator that leads. They prove who they are by a certificate for some minutes, which
they make with the authority's key: so whoever may read that key, on the coordinator's machine, is its admin.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from google.protobuf.timestamp_pb2 import Timestamp
from mumian.api.v1 import access_service_pb2 as pb
from mumian.errors import MumianError

from mumian_orchestrator.adapters.clock import SystemClock
from mumian_orchestrator.adapters.grpc.console import Console
from mumian_orchestrator.adapters.x509.authority import AuthorityFileError
from mumian_orchestrator.adapters.x509.serving import of_files
from mumian_orchestrator.domain.audit import AuditBrokenError, Head, verify
from mumian_orchestrator.domain.identity import Role, role_of
from mumian_orchestrator.main.config import Config, ConfigError, host_and_port, load
from mumian_orchestrator.main.operations import ConfigOption, leave
from mumian_orchestrator.main.security import authority_of, console_user

_DAY_S = 86_400
_PAGE_SIZE = 500


@click.group()
def token() -> None:
    """API tokens of people and programs."""


@token.command("create")
@ConfigOption
@click.option("--role", required=True, type=click.Choice([str(role) for role in Role]))
@click.option("--tenant", default="", metavar="NAME", help="Of tenant-admin and tenant-user.")
@click.option("--operator", default="", metavar="NAME", help="Of operator.")
@click.option("--title", default="", metavar="TEXT", help="What it is for; default: the role.")
@click.option("--days", type=click.IntRange(1, 366), default=90, show_default=True, help="Until it expires.")
def create_token(config_path: Path, role: str, tenant: str, operator: str, title: str, days: int) -> None:
    """Make a token, and print it: once, for only its hash is kept."""
    request = pb.CreateApiTokenRequest(
        title=title or role,
        role=Role(role).wire,
        tenant_id=tenant,
        operator_id=operator,
        lifetime_s=days * _DAY_S,
    )
    with _console(config_path) as console:
        response = console.call("CreateApiToken", request)
    click.echo(f"token {response.token.id} expires {_date(response.token.expire_time)}", err=True)
    click.echo(response.secret)


@token.command("list")
@ConfigOption
def list_tokens(config_path: Path) -> None:
    """The tokens, with those that have expired or were revoked."""
    rows = [("id", "role", "of", "expires", "state", "title")]
    now_s = SystemClock().now().seconds
    with _console(config_path) as console:
        for each in _pages(console, "ListApiTokens", pb.ListApiTokensRequest, "tokens"):
            is_over = each.expire_time.seconds <= now_s
            state = "revoked" if each.HasField("revoke_time") else "expired" if is_over else "good"
            role, of = str(role_of(each.role) or "?"), each.tenant_id or each.operator_id or "-"
            rows.append((each.id, role, of, _date(each.expire_time), state, each.title))
    _print_table(rows)


@token.command("revoke")
@click.argument("token_id")
@ConfigOption
def revoke_token(token_id: str, config_path: Path) -> None:
    """End a token now, and what is open by it."""
    with _console(config_path) as console:
        console.call("RevokeApiToken", pb.RevokeApiTokenRequest(token_id=token_id))
    click.echo(f"revoked token {token_id}")


@click.group("site-token")
def site_token() -> None:
    """One-use tokens by which agents join."""


@site_token.command("create")
@click.argument("site_id", metavar="SITE")
@ConfigOption
@click.option("--operator", required=True, metavar="NAME", help="Whose site it is.")
def create_site_token(site_id: str, config_path: Path, operator: str) -> None:
    """Make a token for one agent to join as SITE, within 15 minutes, and print it."""
    request = pb.CreateSiteTokenRequest(site_id=site_id, operator_id=operator)
    with _console(config_path) as console:
        response = console.call("CreateSiteToken", request)
    click.echo(
        f"good until {_date(response.expire_time)}, once; on the site: "
        "mumian-agent join --config site.yaml --coordinator HOST:PORT --token-file FILE",
        err=True,
    )
    click.echo(response.secret)


@click.group()
def site() -> None:
    """The sites that may connect."""


@site.command("list")
@ConfigOption
def list_sites(config_path: Path) -> None:
    """The sites that have joined, and those that were revoked."""
    rows = [("site", "operator", "joined", "certificate until", "state", "key (SHA-256)")]
    with _console(config_path) as console:
        for each in _pages(console, "ListEnrolledSites", pb.ListEnrolledSitesRequest, "sites"):
            state = "revoked" if each.HasField("revoke_time") else "good"
            until = _date(each.certificate_expire_time)
            rows.append(
                (
                    each.site_id,
                    each.operator_id or "-",
                    _date(each.join_time),
                    until,
                    state,
                    each.key_sha256[:16],
                )
            )
    _print_table(rows)


@site.command("revoke")
@click.argument("site_id", metavar="SITE")
@ConfigOption
def revoke_site(site_id: str, config_path: Path) -> None:
    """Keep SITE out from now on: its stream ends, and its key is refused."""
    with _console(config_path) as console:
        console.call("RevokeSite", pb.RevokeSiteRequest(site_id=site_id))
    click.echo(f"revoked site {site_id}; a new site-token lets it join again")


@click.group()
def audit() -> None:
    """The log of who changed what, and who was refused."""


@audit.command("export")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@ConfigOption
def export(file: Path, config_path: Path) -> None:
    """Write the log to FILE, one entry a line, and print what its newest entry is known by."""
    lines, head = _log_of(config_path)
    file.write_bytes(b"".join(line + b"\n" for line in lines))
    click.echo(f"{head.number} entries in {file}; keep this elsewhere: --head {head.number}:{head.sha256}")


@audit.command("verify")
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    help="Of the coordinator whose log is checked, where there is no FILE.",
)
@click.option("--head", "noted", metavar="NUMBER:SHA256", help="What an earlier export said.")
def verify_log(file: Path | None, config_path: Path | None, noted: str | None) -> None:
    """Check that no entry was changed, removed or moved: in an exported FILE, or in the store."""
    path = config_path or click.get_current_context().find_root().params.get("path")
    if file is None and path is None:
        raise click.UsageError("give an exported FILE, or --config of the coordinator whose log is meant")
    stored: Head | None = None
    if file is not None:
        lines: Sequence[bytes] = file.read_bytes().splitlines()
    else:
        lines, stored = _log_of(Path(str(path)))
    try:
        head = verify(lines, stored)
        if noted is not None:
            earlier = _head(noted)
            # The log may have grown since.
            verify(lines[: earlier.number], earlier)
    except AuditBrokenError as error:
        leave(1, f"the audit log is not what was written: {error}")
    click.echo(f"{head.number} entries, none changed, removed or moved; --head {head.number}:{head.sha256}")


def _head(noted: str) -> Head:
    number, _, sha256 = noted.partition(":")
    if not number.isdecimal() or len(sha256) != 64:
        raise click.UsageError(f"--head ({noted}) must be NUMBER:SHA256, as `audit export` prints it")
    return Head(int(number), sha256)


def _log_of(config_path: Path) -> tuple[Sequence[bytes], Head]:
    with _console(config_path) as console:
        answers = console.audit_log()
    lines = [line for answer in answers for line in answer.entries]
    return lines, Head(answers[-1].head_number, answers[-1].head_sha256)


@contextlib.contextmanager
def _console(config_path: Path) -> Iterator[Console]:
    """A connection to the coordinator of a configuration, and what goes wrong in words."""
    try:
        config = load(config_path)
        with _connected(config) as console:
            yield console
    except (ConfigError, AuthorityFileError) as error:
        leave(2, str(error))
    except MumianError as error:
        leave(1 if error.reason == "CLIENT_UNREACHABLE" else 2, str(error))


def _connected(config: Config) -> Console:
    if not config.is_secure:
        raise ConfigError(
            "access control is off, so there is nobody to let in; set state_dir in the coordinator's "
            "configuration, which turns it on"
        )
    host, port = host_and_port("listen_agents", config.agents_door)
    address = f"{'127.0.0.1' if host in ('0.0.0.0', '[::]') else host}:{port}"
    clock = SystemClock()
    authority = authority_of(config, clock, make=False)
    if authority.can_issue:
        return Console(address, authority.pem, authority.for_console(console_user()))
    # Where the authority's key is elsewhere, the coordinator's own certificate is the strongest there is.
    return Console(address, authority.pem, of_files(Path(config.tls_cert), Path(config.tls_key))())


def _pages(console: Console, method: str, request: Any, field: str) -> Iterator[Any]:
    page_token = ""
    while True:
        response = console.call(method, request(page_size=_PAGE_SIZE, page_token=page_token))
        yield from getattr(response, field)
        page_token = response.next_page_token
        if not page_token:
            return


def _date(when: Timestamp) -> str:
    return when.ToDatetime().strftime("%Y-%m-%d %H:%M UTC") if when.seconds else "-"


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
