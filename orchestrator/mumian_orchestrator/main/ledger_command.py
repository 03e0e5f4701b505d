"""`mumian-coordinator ledger`: verify the ledger against all that is stored, write it out, put it away."""

from __future__ import annotations

import json
from functools import partial
from itertools import chain
from pathlib import Path

import click
from google.protobuf.json_format import MessageToDict

from mumian_orchestrator.adapters.disk.ledger_files import DiskLedgerFiles
from mumian_orchestrator.domain.money.ledger import LedgerError
from mumian_orchestrator.domain.money.ledger_audit import audit_of, files_of, pages_of
from mumian_orchestrator.main.operations import ConfigOption, OpenedStore, leave, run_on_store
from mumian_orchestrator.ports.ledger_files import LedgerFilesError
from mumian_orchestrator.services.money.ledger_put_away import PutAwayRefusedError, pages_in, put_away
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
            found = audit_of(stored, partial(pages_in, _files(store)))
        except LedgerError as error:
            leave(1, f"the ledger is wrong: {error}")
        except LedgerFilesError as error:
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
        in_files = (pages_in(_files(store), file.month) for file in files_of(stored))
        try:
            for page in chain(chain.from_iterable(in_files), pages_of(stored)):
                for entry in page.entries:
                    shown = MessageToDict(entry, preserving_proto_field_name=True)
                    click.echo(json.dumps(shown, ensure_ascii=False))
        except LedgerFilesError as error:
            leave(1, f"a month that was put away cannot be read: {error}")
        return ""

    run_on_store(config_path, do)


@ledger.command("put-away")
@ConfigOption
def put_away_(config_path: Path) -> None:
    """Move the months that are over from the store to files in `ledger_dir`.

    They stay a part of the ledger: statements, reports, `verify` and `export` read them there. Coordinators
    need not stop. Broken off, it goes on the next time.
    """

    async def do(store: OpenedStore) -> str:
        if not store.config.ledger_dir:
            leave(2, f"{config_path} has no ledger_dir; give a folder that all coordinators share")
        try:
            made = await put_away(store.kv, store.config.key_prefix, _files(store))
        except LedgerError as error:
            leave(1, f"the ledger is wrong: {error}")
        except (LedgerFilesError, PutAwayRefusedError) as error:
            leave(1, str(error))
        if not made:
            return "nothing to put away: no month is over in which something was entered"
        months = ", ".join(file.month for file in made)
        return (
            f"put away {months}: entries up to {made[-1].sequence} lie in {store.config.ledger_dir}; "
            "back that folder up, too"
        )

    run_on_store(config_path, do)


def _files(store: OpenedStore) -> DiskLedgerFiles:
    return DiskLedgerFiles(Path(store.config.ledger_dir))
