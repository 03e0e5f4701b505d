"""`mumian-coordinator ledger`: verify the ledger against all that is stored, and write it out."""

from __future__ import annotations

import json
from pathlib import Path

import click
from google.protobuf.json_format import MessageToDict

from mumian_orchestrator.domain.money.ledger import LedgerError
from mumian_orchestrator.domain.money.ledger_audit import audit_of, entries_of
from mumian_orchestrator.main.operations import ConfigOption, OpenedStore, leave, run_on_store
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
        try:
            found = audit_of(await read_whole(store.kv, store.config.key_prefix))
        except LedgerError as error:
            leave(1, f"the ledger is wrong: {error}")
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
        lines = (
            json.dumps(MessageToDict(entry, preserving_proto_field_name=True), ensure_ascii=False)
            for entry in entries_of(await read_whole(store.kv, store.config.key_prefix))
        )
        return "\n".join(lines)

    run_on_store(config_path, do)
