"""What an operator does to the store from a coordinator's machine: back up, restore, make room."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import click
from mumian.api.v1.ops_service_pb2 import Finding
from mumian.cli.doctor import show
from mumian.cli.session import Session, output_option, pass_session
from mumian.findings import fail, ok

from mumian_orchestrator.adapters.clock import SystemClock
from mumian_orchestrator.adapters.disk.backup_file import DiskBackupReader, DiskBackupWriter
from mumian_orchestrator.adapters.etcd.client import EtcdClient
from mumian_orchestrator.adapters.etcd.health import EtcdHealth
from mumian_orchestrator.adapters.etcd.key_value import EtcdKeyValue
from mumian_orchestrator.main.config import Config, ConfigError, etcd_credentials, load
from mumian_orchestrator.ports.backup_file import BackupFileError
from mumian_orchestrator.ports.key_value import NoAnswerError, NoSpaceError
from mumian_orchestrator.services.diagnosis.store_servers import store_findings
from mumian_orchestrator.services.leadership import leader_key
from mumian_orchestrator.services.store import backup as backups
from mumian_orchestrator.services.store.fenced import restoring_key

# No service waits for these commands, so one attempt may take longer than a coordinator's.
_ATTEMPT_S = 5.0
_MIB = 1024 * 1024


def _config_given(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path:
    """It may also stand before the command, as where a coordinator is run."""
    path = value or context.find_root().params.get("path")
    if not isinstance(path, Path):
        raise click.MissingParameter(ctx=context, param=parameter)
    return path


ConfigOption = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    callback=_config_given,
    help="The coordinator's YAML file: where its etcd is.",
)


@dataclass(frozen=True, slots=True)
class OpenedStore:
    """The configured store, for one command."""

    config: Config
    kv: EtcdKeyValue
    health: EtcdHealth


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@ConfigOption
def backup(file: Path, config_path: Path) -> None:
    """Write all that the platform has stored, as it is at one moment, to FILE. Work goes on meanwhile."""

    async def do(store: OpenedStore) -> str:
        writer = DiskBackupWriter(file)
        facts = await backups.back_up(store.kv, store.config.key_prefix, writer, SystemClock())
        return f"backed up {facts.keys} keys at revision {facts.revision} to {file}"

    run_on_store(config_path, do)


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@ConfigOption
@click.option("--replace", is_flag=True, help="Lose what is stored now, and restore over it.")
def restore(file: Path, config_path: Path, replace: bool) -> None:
    """Put the backup FILE into an empty store. Stop every coordinator first; start them again after it."""

    async def do(store: OpenedStore) -> str:
        prefix, reader = store.config.key_prefix, DiskBackupReader(file)
        facts = await backups.restore(store.kv, prefix, reader, SystemClock(), replace=replace)
        return f"restored {facts.keys} keys of {facts.created} below {prefix}; start the coordinators"

    run_on_store(config_path, do)


@click.command()
@ConfigOption
def defragment(config_path: Path) -> None:
    """Make room in etcd: forget history, give free space back to the disk, take the NOSPACE alarm back."""

    async def do(store: OpenedStore) -> str:
        now = (await store.kv.list(store.config.key_prefix)).revision
        await store.kv.compact(now)
        for server in await store.health.servers():
            if server.problem:
                raise NoAnswerError(f"etcd {server.endpoint}: {server.problem}")
            # One after the other: a member answers nobody while it does this.
            await store.health.defragment(server.endpoint)
        await store.health.disarm()
        return "\n".join(
            f"etcd {server.endpoint}: {server.size_bytes / _MIB:.1f} MiB, "
            f"of which {server.in_use_bytes / _MIB:.1f} MiB are in use"
            for server in await store.health.servers()
        )

    run_on_store(config_path, do)


@click.command()
@ConfigOption
@output_option
@pass_session
def doctor(session: Session, /, config_path: Path) -> None:
    """Check the store, also while no coordinator answers. Exits with 1 if something fails."""
    found: list[Finding] = []

    async def do(store: OpenedStore) -> str:
        found.extend(await store_findings(store.health))
        found.append(await _leadership(store))
        return ""

    run_on_store(config_path, do)
    raise SystemExit(show(session, found))


async def _leadership(store: OpenedStore) -> Finding:
    prefix = store.config.key_prefix
    try:
        keys = (leader_key(prefix), restoring_key(prefix))
        found = [entry for key in keys for entry in (await store.kv.list(key)).entries]
    except NoAnswerError as error:
        return fail("leader", f"who leads is not known: {error}", "put the store right first")
    stored = {entry.key: entry.value for entry in found}
    leader = stored.get(leader_key(prefix))
    if restoring_key(prefix) in stored:
        advice = "wait for the restore; if it was broken off, do it again with --replace"
        return fail("leader", f"the store below {prefix} is half restored, and nobody can lead", advice)
    if leader is None:
        return fail(
            "leader", f"no coordinator leads below {prefix}", "start one; its log says why it does not"
        )
    return ok("leader", f"{leader.decode(errors='replace').strip()} leads")


def run_on_store(config_path: Path, do: Callable[[OpenedStore], Awaitable[str]]) -> None:
    """Do it on the configured store, and print what was done; 2 for what the caller can put right."""
    logging.getLogger().setLevel(logging.WARNING)

    async def on_store() -> str:
        async with _opened(load(config_path)) as store:
            return await do(store)

    try:
        if done := asyncio.run(on_store()):
            click.echo(done)
    except (ConfigError, BackupFileError, backups.RestoreRefusedError) as error:
        leave(2, str(error))
    except OSError as error:
        leave(2, f"{error.filename}: {error.strerror}")
    except NoSpaceError as error:
        leave(1, f"{error}; `mumian-coordinator defragment` makes room")
    except NoAnswerError as error:
        leave(1, str(error))


@contextlib.asynccontextmanager
async def _opened(config: Config) -> AsyncIterator[OpenedStore]:
    credentials = etcd_credentials(config)
    client = EtcdClient(config.etcd, credentials, attempt_s=_ATTEMPT_S)
    try:
        yield OpenedStore(config, EtcdKeyValue(client), EtcdHealth(client, credentials))
    finally:
        await client.close()


def leave(code: int, message: str) -> NoReturn:
    """Say what is wrong, and leave."""
    click.echo(f"mumian-coordinator: {message}", err=True)
    raise SystemExit(code)
