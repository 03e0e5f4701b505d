"""`mumian token`, `site-token`, `site` and `audit` as they are on a coordinator's machine.

They prove who they are by a certificate for some minutes, made with the authority's key: so whoever may read
that key is the platform's admin, and the first token needs no other.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from mumian.cli.access import access_groups
from mumian.cli.session import Session, output_option, pass_session
from mumian.client import Client
from mumian.connection import Connection
from mumian.errors import MumianError

from mumian_orchestrator.adapters.clock import SystemClock
from mumian_orchestrator.adapters.x509.authority import AuthorityFileError
from mumian_orchestrator.adapters.x509.serving import of_files
from mumian_orchestrator.domain.audit import AUDIT, AuditBrokenError, Head, compare, verify
from mumian_orchestrator.main.config import Config, ConfigError, host_and_port, load
from mumian_orchestrator.main.operations import ConfigOption, leave
from mumian_orchestrator.main.put_away_command import put_away_command
from mumian_orchestrator.main.security import authority_of, console_user

_ANSWERED_WITHIN_S, _CONNECTED_WITHIN_S = 15.0, 3.0


def _on_this_machine(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command with the options that it has here, and what goes wrong in words."""

    @ConfigOption
    @click.option("--tenant", metavar="NAME", help="Of tenant-admin and tenant-user.")
    @output_option
    @pass_session
    @functools.wraps(command)
    def connected(session: Session, /, config_path: Path, tenant: str | None, **arguments: Any) -> Any:
        try:
            with _client(load(config_path)) as client:
                # In place of the one that it would open.
                session.__dict__["client"], session.tenant = client, tenant
                return command(**arguments)
        except (ConfigError, AuthorityFileError) as error:
            leave(2, str(error))
        except MumianError as error:
            leave(1 if error.reason == "CLIENT_UNREACHABLE" else 2, str(error))

    return connected


def _client(config: Config) -> Client:
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
        pair = authority.for_console(console_user())
    else:
        # The coordinator's own certificate is then the strongest there is.
        pair = of_files(Path(config.tls_cert), Path(config.tls_key))()
    return Client.over(
        Connection(
            (address,),
            "",
            _ANSWERED_WITHIN_S,
            _CONNECTED_WITHIN_S,
            ca=authority.pem,
            certificate=pair.chain,
            key=pair.key,
        )
    )


token, site_token, site, audit = access_groups(_on_this_machine)


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
    earlier = _head(noted) if noted is not None else None
    try:
        if file is not None:
            with file.open("rb") as lines:
                head = verify((line.rstrip(b"\n") for line in lines), noted=earlier)
        elif path is not None:
            with _client(load(Path(str(path)))) as client:
                head = _verified(client, earlier)
        else:
            raise click.UsageError("give an exported FILE, or --config of the coordinator whose log is meant")
    except AuditBrokenError as error:
        leave(1, f"the audit log is not what was written: {error}")
    except (ConfigError, AuthorityFileError, MumianError) as error:
        leave(2, str(error))
    click.echo(f"{head.number} entries, none changed, removed or moved; --head {head.number}:{head.sha256}")


audit.add_command(put_away_command(AUDIT, "`verify` and `export`"))


def _verified(client: Client, earlier: Head | None) -> Head:
    """Of the log as it is stored, which ends with the head that is stored beside it."""
    stored = Head()

    def lines() -> Iterator[bytes]:
        nonlocal stored
        for answer in client.audit_log():
            yield from answer.entries
            stored = Head(answer.head_number, answer.head_sha256)

    head = verify(lines(), noted=earlier)
    compare(head, stored)
    return head


def _head(noted: str) -> Head:
    number, _, sha256 = noted.partition(":")
    if not number.isdecimal() or len(sha256) != 64:
        raise click.UsageError(f"--head ({noted}) must be NUMBER:SHA256, as `audit export` prints it")
    return Head(int(number), sha256)
