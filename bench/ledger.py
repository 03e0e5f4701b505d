"""Ledger entries a second, and how long replaying them takes: `python -m bench.ledger`.

Each round reserves for an allocation and posts its receipt, as the coordinator does in memory for a commit;
then all pages are replayed with their hashes, as `mumian-coordinator ledger verify` does. Without a store.
Times are the processor's: a busy machine changes them little.
"""

from __future__ import annotations

import time

import click
from mumian.api.v1.job_pb2 import Allocation
from mumian.storage.v1 import ledger_pb2
from mumian.storage.v1.ledger_pb2 import LedgerPage, Settlement
from mumian_orchestrator.adapters.clock import SystemClock
from mumian_orchestrator.domain.money import ledger
from mumian_orchestrator.domain.money.ledger import Balances, budget_of, page_hash
from mumian_orchestrator.domain.periods import month_of
from mumian_orchestrator.services.money.ledger_book import BudgetLimits, Draft, LedgerBook


@click.command()
@click.option("--entries", type=click.IntRange(2, 10**8), default=1_000_000, show_default=True)
def main(entries: int) -> None:
    """One line `name value unit` each."""
    book = LedgerBook(SystemClock())
    book.set_limits("acme", BudgetLimits(month=10**15, year=10**15))
    owner, month = budget_of("acme"), month_of(book.now_ms())
    pages: list[bytes] = []
    begun_s = time.process_time()
    for number in range(entries // 2):
        allocation = Allocation(id=f"job-{number}.main.0", attempt=1)
        allocation.receipt.total_microcny = allocation.receipt.tenant_microcny = 700
        reserved = [ledger.reserve(owner, period, 1000) for period in (month, month[:4])]
        book.promise(allocation.id, Draft(ledger_pb2.LEDGER_ENTRY_KIND_RESERVE, ledger.merged(reserved)))
        pages += [w.value or b"" for w in book.writes([allocation]) if w.key.startswith(ledger.LEDGER.pages)]
        posted = [ledger.post(owner, period, 1000, 700) for period in (month, month[:4])]
        changes = ledger.merged([*posted, {"owed/acme": 700, "earned/op": -700}])
        about = Settlement(tenant_id="acme", operator_id="op", site_id="gz")
        book.promise(allocation.id, Draft(ledger_pb2.LEDGER_ENTRY_KIND_POST, changes, settlement=about))
        pages += [w.value or b"" for w in book.writes([allocation]) if w.key.startswith(ledger.LEDGER.pages)]
    entered_s = time.process_time() - begun_s
    begun_s = time.process_time()
    # The two grants of the budget were not kept above: they come first.
    balances, newest = Balances(), b""
    for period in (month, month[:4]):
        for account, microcny in ledger.grant(owner, period, 10**15).items():
            balances.microcny[account] += microcny
        balances.sequence += 1
    for value in pages:
        page = LedgerPage.FromString(value)
        newest = page_hash(newest, [entry.SerializeToString() for entry in page.entries])
        for entry in page.entries:
            balances.apply(entry)
    replayed_s = time.process_time() - begun_s
    spent = balances.funds()[owner, month]["spent"]
    if spent != 700 * (entries // 2) or balances.sequence != entries // 2 * 2 + 2:
        raise click.ClickException(f"{spent} micro-CNY were replayed as spent; that is wrong")
    click.echo(f"ledger_entries {entries / entered_s:.0f} per_s")
    click.echo(f"ledger_replay {replayed_s:.1f} s")
    click.echo(f"ledger_replayed_entries {entries / replayed_s:.0f} per_s")


if __name__ == "__main__":
    main()
