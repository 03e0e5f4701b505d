"""Whether a ledger is whole, and agrees with what else is stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from mumian.api.v1.job_pb2 import Allocation
from mumian.storage.v1 import ledger_pb2
from mumian.storage.v1.ledger_pb2 import LedgerEntry, LedgerHead, LedgerPage, StoredFund, StoredFunds

from mumian_orchestrator.domain.money.holds import amounts_of
from mumian_orchestrator.domain.money.ledger import (
    AVAILABLE,
    GRANTED,
    RESERVED,
    SPENT,
    Balances,
    LedgerError,
    budget_of,
    page_hash,
    pool_of,
    share_of,
)
from mumian_orchestrator.domain.money.periods import year_of

# Where what it reads is stored, relative to the store's prefix.
HEAD, FUNDS, PAGES = "ledger/head", "ledger/funds/", "log/ledger/"
JOBS, ALLOCATIONS = "jobs/", "allocations/"


class Audit(NamedTuple):
    """What was found right."""

    pages: int
    entries: int
    funds: int
    receipts: int
    posted_microcny: int


def pages_of(stored: Mapping[str, bytes]) -> Iterator[LedgerPage]:
    """The pages in their order, which is that of their keys."""
    for key in sorted(key for key in stored if key.startswith(PAGES)):
        yield LedgerPage.FromString(stored[key])


def entries_of(stored: Mapping[str, bytes]) -> Iterator[LedgerEntry]:
    """All entries, oldest first."""
    for page in pages_of(stored):
        yield from page.entries


def audit_of(stored: Mapping[str, bytes]) -> Audit:
    """Replay the ledger and compare it with all that is stored, by key.

    Raises:
        LedgerError: the first thing that is wrong.
    """
    balances, newest, pages, time_ns = Balances(), b"", 0, 0
    posted: dict[tuple[str, int], LedgerEntry] = {}
    for page in pages_of(stored):
        pages += 1
        newest = page_hash(newest, [entry.SerializeToString() for entry in page.entries])
        if newest != page.hash:
            raise LedgerError(f"the page of entry {page.entries[0].sequence} was changed, or one before it")
        for entry in page.entries:
            balances.apply(entry)
            if entry.time.ToNanoseconds() < time_ns:
                raise LedgerError(f"entry {entry.sequence} is older than the one before it")
            time_ns = entry.time.ToNanoseconds()
            if entry.kind == ledger_pb2.LEDGER_ENTRY_KIND_POST:
                attempt = entry.allocation_id, entry.attempt
                if attempt in posted:
                    raise LedgerError(
                        f"attempt {entry.attempt} of {entry.allocation_id} is posted twice, by entries "
                        f"{posted[attempt].sequence} and {entry.sequence}"
                    )
                posted[attempt] = entry
    _compare_head(stored, balances.sequence, newest)
    allocations = [
        Allocation.FromString(value) for key, value in stored.items() if key.startswith(ALLOCATIONS)
    ]
    _compare_holds(allocations, balances)
    job_ids = {key.removeprefix(JOBS) for key in stored if key.startswith(JOBS)}
    return Audit(
        pages,
        balances.sequence,
        _compare_funds(stored, balances),
        _compare_receipts(allocations, posted, job_ids),
        sum(entry.settlement.receipt.total_microcny for entry in posted.values()),
    )


def _compare_head(stored: Mapping[str, bytes], sequence: int, newest: bytes) -> None:
    head = LedgerHead.FromString(stored.get(HEAD, b""))
    if (head.sequence, head.hash) != (sequence, newest):
        raise LedgerError(f"the ledger ends with entry {sequence}, and its head says {head.sequence}")


def _compare_funds(stored: Mapping[str, bytes], balances: Balances) -> int:
    kept: dict[tuple[str, str], StoredFund] = {}
    for key, value in stored.items():
        if key.startswith(FUNDS):
            for name, fund in StoredFunds.FromString(value).funds.items():
                owner, _, period = name.partition("@")
                kept[owner, period] = fund
    replayed = balances.funds()
    for of in kept.keys() | replayed.keys():
        fund = kept.get(of, StoredFund())
        found = {
            AVAILABLE: fund.available_microcny,
            RESERVED: fund.reserved_microcny,
            SPENT: fund.spent_microcny,
        }
        found[GRANTED] = sum(found.values())
        wanted = replayed.get(of, dict.fromkeys(found, 0))
        if found != wanted:
            raise LedgerError(f"fund {of[0]} of {of[1]} is stored as {found}, and replayed as {wanted}")
    return len(kept)


def _compare_holds(allocations: Iterable[Allocation], balances: Balances) -> None:
    """What is reserved of a fund is what is held for allocations that have not ended."""
    held: Counter[tuple[str, str]] = Counter()
    for allocation in allocations:
        funding = allocation.funding
        for hold in () if funding.settled else funding.holds:
            kept, year, owner = amounts_of(hold), year_of(hold.month), budget_of(allocation.tenant_id)
            held[owner, hold.month] += kept.tenant if hold.month_budget else 0
            held[owner, year] += kept.tenant if hold.year_budget else 0
            held[pool_of(funding.voucher_policy_id), year] += kept.voucher
            held[share_of(funding.voucher_policy_id, funding.enterprise_id), year] += kept.voucher
    funds = balances.funds()
    for of in funds.keys() | held.keys():
        reserved = funds[of][RESERVED] if of in funds else 0
        if reserved != held[of]:
            raise LedgerError(
                f"of fund {of[0]} of {of[1]} {reserved} micro-CNY are reserved, and {held[of]} are held for "
                "allocations that have not ended"
            )


def _compare_receipts(
    allocations: Iterable[Allocation],
    posted: dict[tuple[str, int], LedgerEntry],
    job_ids: Collection[str],
) -> int:
    left = dict(posted)
    for allocation in allocations:
        if not allocation.HasField("receipt") or not allocation.receipt.ledger_sequence:
            continue  # it has not ended, or ended before there was a ledger
        entry = left.pop((allocation.id, allocation.attempt), None)
        if entry is None or entry.settlement.receipt != allocation.receipt:
            raise LedgerError(f"the receipt of {allocation.id} is not the one that was posted")
    # A job that has been archived is not stored any more, and all of its receipts with it.
    missing = [allocation_id for allocation_id, _ in left if allocation_id.split(".")[0] in job_ids]
    if missing:
        raise LedgerError(f"{min(missing)} is posted, and has no receipt")
    return len(posted)
