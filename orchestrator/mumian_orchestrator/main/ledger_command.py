"""`mumian-coordinator ledger`: verify the ledger against all that is stored, write it out, put it away."""

from __future__ import annotations

import json
from functools import partial
from itertools import chain
from pathlib import Path

import click
from google.protobuf.json_format import MessageToDict
from mumian.storage.v1.ledger_pb2 import LedgerPage

from mumian_orchestrator.adapters.disk.log_files import DiskLogFiles
from mumian_orchestrator.domain.money.ledger import LEDGER, LedgerError
from mumian_orchestrator.domain.money.ledger_audit import audit_of, files_of, pages_of
from mumian_orchestrator.main.operations import ConfigOption, OpenedStore, leave, run_on_store
from mumian_orchestrator.main.put_away_command import put_away_command
from mumian_orchestrator.ports.log_files import LogFilesError
from mumian_orchestrator.services.store.put_away import pages_in
from mumian_orchestrator.services.store.reader import read_whole


@click.group()
def ledger() -> None:
    """The ledger of money: is it whole, and what is in it."""


@ledger.command()
@ConfigOption
def verify(config_path: Path) -> None:
    """Replay the ledger, and exit with 1 if it is not whole.

    Every entry adds up, nothing was changed or dropped, no fund was ever below zero, and funds and receipts
    are what the entries say.
    """

    async def do(store: OpenedStore) -> str:
        stored = await read_whole(store.kv, store.config.key_prefix)
        try:
            found = audit_of(stored, partial(pages_in, _files(store), LEDGER))
        except LedgerError as error:
            leave(1, f"the ledger is wrong: {error}")
        except LogFilesError as error:
            leave(1, f"a month that was put away cannot be read: {error}")
        return (
            f"the ledger is whole: entries {found.entries}, pages {found.pages}, funds {found.funds}, "
            f"receipts {found.receipts}; posted CNY {found.posted_microcny / 1e6:.6f}"
        )

    run_on_store(config_path, do)


@ledger.command()
@ConfigOption
def export(config_path: Path) -> None:
    """Print every entry, oldest first, as one line of JSON."""

    async def do(store: OpenedStore) -> str:
        stored = await read_whole(store.kv, store.config.key_prefix)
        in_files = (pages_in(_files(store), LEDGER, file.month) for file in files_of(stored))
        try:
            put_away = map(LedgerPage.FromString, chain.from_iterable(in_files))
            for page in chain(put_away, pages_of(stored)):
                for entry in page.entries:
                    shown = MessageToDict(entry, preserving_proto_field_name=True)
                    click.echo(json.dumps(shown, ensure_ascii=False))
        except LogFilesError as error:
            leave(1, f"a month that was put away cannot be read: {error}")
        return ""

    run_on_store(config_path, do)


ledger.add_command(put_away_command(LEDGER, "statements, reports, `verify` and `export`"))


def _files(store: OpenedStore) -> DiskLogFiles:
    return DiskLogFiles(Path(store.config.records_dir))
