"""Double entry: every entry moves money between accounts, and its legs add up to zero.

Accounts of a fund (a budget, a pool of vouchers) in a period are `OWNER@PERIOD:available`, `:reserved` and
`:spent`; what it was granted comes from `:granted`, which is below zero by as much. Who owes and who has
earned stands in `owed/TENANT`, `owed/city/POLICY`, `earned/OPERATOR`, `carbon`, `forgone/OPERATOR`.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from mumian.storage.v1.ledger_pb2 import LedgerEntry, LedgerLeg, LedgerPage

from mumian_orchestrator.domain.chained_log import ChainBrokenError, ChainedLog, ChainEnd

AVAILABLE, RESERVED, SPENT, GRANTED = "available", "reserved", "spent", "granted"
_GUARDED = (f":{AVAILABLE}", f":{RESERVED}", f":{SPENT}")  # never below zero


class LedgerError(ChainBrokenError):
    """Entries that cannot be a ledger: the first thing that is wrong with them."""


def budget_of(tenant_id: str) -> str:
    """The owner of a tenant's budget."""
    return f"budget/{tenant_id}"


def pool_of(policy_id: str) -> str:
    """The owner of a policy's pool of vouchers."""
    return f"voucher/{policy_id}"


def share_of(policy_id: str, enterprise_id: str) -> str:
    """The owner of what one enterprise may have of it."""
    return f"voucher/{policy_id}/{enterprise_id}"


def fund_account(owner: str, period: str, part: str) -> str:
    """The name of one of a fund's accounts."""
    return f"{owner}@{period}:{part}"


@lru_cache(maxsize=1 << 16)  # a fund has few accounts, and each is named in many entries
def fund_of(account: str) -> tuple[str, str, str] | None:
    """The owner, period and part of a fund's account; None of any other."""
    owner, at, rest = account.partition("@")
    period, colon, part = rest.partition(":")
    return (owner, period, part) if at and colon else None


def legs_of(changes: Mapping[str, int]) -> list[LedgerLeg]:
    """As legs; what does not change is left out."""
    return [LedgerLeg(account=account, microcny=change) for account, change in changes.items() if change]


def grant(owner: str, period: str, microcny: int) -> dict[str, int]:
    """A fund gets so much more to give; below zero: less."""
    return {
        fund_account(owner, period, GRANTED): -microcny,
        fund_account(owner, period, AVAILABLE): microcny,
    }


def reserve(owner: str, period: str, microcny: int) -> dict[str, int]:
    """So much of it is kept."""
    return {
        fund_account(owner, period, AVAILABLE): -microcny,
        fund_account(owner, period, RESERVED): microcny,
    }


def post(owner: str, period: str, reserved: int, spent: int) -> dict[str, int]:
    """Of what was kept so much is spent, and the rest goes back."""
    return {
        fund_account(owner, period, RESERVED): -reserved,
        fund_account(owner, period, SPENT): spent,
        fund_account(owner, period, AVAILABLE): reserved - spent,
    }


def give_back(owner: str, period: str, microcny: int) -> dict[str, int]:
    """What was spent is there again."""
    return {
        fund_account(owner, period, SPENT): -microcny,
        fund_account(owner, period, AVAILABLE): microcny,
    }


def merged(changes: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Several changes as one."""
    whole: dict[str, int] = defaultdict(int)
    for change in changes:
        for account, microcny in change.items():
            whole[account] += microcny
    return whole


def page_hash(previous: bytes, entries: Sequence[bytes]) -> bytes:
    """Of a page: whoever changes or drops an entry changes every hash after it."""
    digest = hashlib.sha256(previous)
    for entry in entries:
        digest.update(len(entry).to_bytes(4))
        digest.update(entry)
    return digest.digest()


def _behind(end: ChainEnd, data: bytes) -> ChainEnd:
    page = LedgerPage.FromString(data)
    first = page.entries[0].sequence if page.entries else 0
    digest = page_hash(end.hash, [entry.SerializeToString() for entry in page.entries])
    if first != end.sequence + 1 or digest != page.hash:
        raise LedgerError(f"the page of entry {first} does not follow the one before")
    return ChainEnd(page.entries[-1].sequence, digest)


LEDGER = ChainedLog("ledger", "ledger", _behind)


class Balances:
    """Accounts by name, worked out from entries."""

    def __init__(self) -> None:
        self.microcny: dict[str, int] = defaultdict(int)
        self.sequence = 0

    def apply(self, entry: LedgerEntry) -> None:
        """Take the next entry.

        Raises:
            LedgerError: it is not the next one, does not add up, or takes a fund's account below zero.
        """
        if entry.sequence != self.sequence + 1:
            raise LedgerError(f"entry {entry.sequence} comes after entry {self.sequence}")
        self.sequence = entry.sequence
        total = 0
        microcny = self.microcny
        for leg in entry.legs:
            total += leg.microcny
            balance = microcny[leg.account] = microcny[leg.account] + leg.microcny
            if balance < 0 and leg.account.endswith(_GUARDED):
                raise LedgerError(f"entry {entry.sequence} leaves {balance} micro-CNY in {leg.account}")
        if total:
            raise LedgerError(f"the legs of entry {entry.sequence} add up to {total} micro-CNY, not to 0")

    def funds(self) -> dict[tuple[str, str], dict[str, int]]:
        """What is granted, available, reserved and spent, by owner and period."""
        found: dict[tuple[str, str], dict[str, int]] = {}
        for account, balance in self.microcny.items():
            if named := fund_of(account):
                owner, period, part = named
                fund = found.setdefault(
                    (owner, period), dict.fromkeys((GRANTED, AVAILABLE, RESERVED, SPENT), 0)
                )
                fund[part] = -balance if part == GRANTED else balance
        return found
