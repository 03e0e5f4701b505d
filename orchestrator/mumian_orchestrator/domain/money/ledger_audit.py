"""Whether a ledger is whole, and agrees with what else is stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from mumian.api.v1.job_pb2 import Allocation
from mumian.storage.v1 import ledger_pb2
from mumian.storage.v1.ledger_pb2 import (
    LedgerEntry,
    LedgerHead,
    LedgerPage,
    StoredFund,
    StoredFunds,
)
from mumian.storage.v1.put_away_pb2 import MonthFile, PutAway

from mumian_orchestrator.domain.money.holds import amounts_of
from mumian_orchestrator.domain.money.ledger import (
    AVAILABLE,
    GRANTED,
    LEDGER,
    RESERVED,
    SPENT,
    Balances,
    LedgerError,
    budget_of,
    page_hash,
    pool_of,
    share_of,
)
from mumian_orchestrator.domain.periods import year_of

# Where what it reads is stored, relative to the store's prefix.
HEAD, FUNDS = "ledger/head", "ledger/funds/"
JOBS, ALLOCATIONS = "jobs/", "allocations/"


class Audit(NamedTuple):
    """What was found right."""

    pages: int
    entries: int
    funds: int
    receipts: int
    posted_microcny: int


def files_of(stored: Mapping[str, bytes]) -> list[MonthFile]:
    """The months that were put away, oldest first: their pages come before those that are stored."""
    return list(PutAway.FromString(stored.get(LEDGER.note, b"")).files)


def pages_of(stored: Mapping[str, bytes]) -> Iterator[LedgerPage]:
    """The stored pages in their order, which is that of their keys."""
    # Of a month that was put away some may be left, if that was broken off.
    behind = max((f"{LEDGER.pages}{file.month}0" for file in files_of(stored)), default="")  # "0" follows "/"
    for key in sorted(key for key in stored if key.startswith(LEDGER.pages) and key > behind):
        yield LedgerPage.FromString(stored[key])


def _no_files(month: str) -> Iterable[bytes]:
    raise LedgerError(f"{month} was put away, and its file is needed")


def audit_of(stored: Mapping[str, bytes], put_away: Callable[[str], Iterable[bytes]] = _no_files) -> Audit:
    """Replay the ledger and compare it with all that is stored, by key.

    Args:
        put_away: gives the pages of a month that lies in a file.

    Raises:
        LedgerError: the first thing that is wrong.
    """
    replayed = Replay()
    for file in files_of(stored):
        replayed.take_all(map(LedgerPage.FromString, put_away(file.month)))
        if (replayed.balances.sequence, replayed.hash) != (file.sequence, file.hash):
            raise LedgerError(
                f"the file of {file.month} ends with entry {replayed.balances.sequence}, and with entry "
                f"{file.sequence} when that month was put away"
            )
    replayed.take_all(pages_of(stored))
    balances, posted = replayed.balances, replayed.posted
    _compare_head(stored, balances.sequence, replayed.hash)
    allocations = [
        Allocation.FromString(value) for key, value in stored.items() if key.startswith(ALLOCATIONS)
    ]
    _compare_holds(allocations, balances)
    job_ids = {key.removeprefix(JOBS) for key in stored if key.startswith(JOBS)}
    return Audit(
        replayed.pages,
        balances.sequence,
        _compare_funds(stored, balances),
        _compare_receipts(allocations, posted, job_ids),
        sum(entry.settlement.receipt.total_microcny for entry in posted.values()),
    )


class Replay:
    """The pages of a ledger, taken one after the other from its beginning."""

    def __init__(self) -> None:
        self.balances, self.hash, self.pages = Balances(), b"", 0
        self.posted: dict[tuple[str, int], LedgerEntry] = {}  # by allocation and attempt
        self._time_ns = 0

    def take_all(self, pages: Iterable[LedgerPage]) -> None:
        """Take the next pages.

        Raises:
            LedgerError: the first thing that is wrong.
        """
        for page in pages:
            self.pages += 1
            self.hash = page_hash(self.hash, [entry.SerializeToString() for entry in page.entries])
            if self.hash != page.hash:
                raise LedgerError(
                    f"the page of entry {page.entries[0].sequence} was changed, or one before it"
                )
            for entry in page.entries:
                self._take(entry)

    def _take(self, entry: LedgerEntry) -> None:
        self.balances.apply(entry)
        if entry.time.ToNanoseconds() < self._time_ns:
            raise LedgerError(f"entry {entry.sequence} is older than the one before it")
        self._time_ns = entry.time.ToNanoseconds()
        if entry.kind == ledger_pb2.LEDGER_ENTRY_KIND_POST:
            attempt = entry.allocation_id, entry.attempt
            if attempt in self.posted:
                raise LedgerError(
                    f"attempt {entry.attempt} of {entry.allocation_id} is posted twice, by entries "
                    f"{self.posted[attempt].sequence} and {entry.sequence}"
                )
            self.posted[attempt] = entry


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
