"""The ledger of the leader: the funds as they are, and the entries that the next commits take along."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from google.protobuf.timestamp_pb2 import Timestamp
from mumian.api.v1.job_pb2 import Allocation
from mumian.api.v1.money_pb2 import Fund
from mumian.storage.v1 import ledger_pb2
from mumian.storage.v1.ledger_pb2 import (
    LedgerEntry,
    LedgerEntryKind,
    LedgerHead,
    LedgerPage,
    Settlement,
    StoredFund,
    StoredFunds,
)

from mumian_orchestrator.domain.money.ledger import (
    AVAILABLE,
    LEDGER,
    RESERVED,
    SPENT,
    budget_of,
    fund_of,
    grant,
    legs_of,
    page_hash,
)
from mumian_orchestrator.domain.periods import month_of, start_ms, year_of
from mumian_orchestrator.ports.clock import Clock
from mumian_orchestrator.ports.store import Write

_HEAD, _FUNDS, _ENTERPRISE = "ledger/head", "ledger/funds/", "enterprise/"
FundKey = tuple[str, str]  # owner, period


@dataclass(slots=True)
class Draft:
    """An entry to be: it gets its place in the ledger with the commit that takes it along."""

    kind: LedgerEntryKind.ValueType
    changes: Mapping[str, int]  # by account
    # What the funds are to be granted in all, where that is not so yet.
    limits: Mapping[FundKey, int] = field(default_factory=dict)
    settlement: Settlement | None = None
    reason: str = ""
    corrects_sequence: int = 0


@dataclass(frozen=True, slots=True)
class BudgetLimits:
    """What a tenant may spend in each month and year, in micro-CNY; None: not limited."""

    month: int | None = None
    year: int | None = None


_NO_LIMITS = BudgetLimits()


class LedgerBook:
    """Funds change in memory at once and in the store with the commit that they belong to, as all else.

    A draft waits until its allocation is committed; what it takes is not available to others meanwhile.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._funds: dict[FundKey, StoredFund] = {}
        self._keys: dict[str, set[FundKey]] = defaultdict(set)  # the funds that are stored together
        self._limits: dict[str, BudgetLimits] = {}
        self._contracts: dict[str, dict[str, str]] = {}  # by enterprise and number: the policy that has paid
        self._waiting: dict[str, list[Draft]] = {}  # by allocation
        self._promised: Counter[FundKey] = Counter()
        self._head = LedgerHead()

    def load(self, stored: Mapping[str, bytes]) -> None:
        """Take over what is stored."""
        for key, value in stored.items():
            if key == _HEAD:
                self._head = LedgerHead.FromString(value)
            elif key.startswith(_FUNDS):
                group = key.removeprefix(_FUNDS)
                found = StoredFunds.FromString(value)
                for name, fund in found.funds.items():
                    owner, _, period = name.partition("@")
                    self._add((owner, period), fund)
                if group.startswith(_ENTERPRISE) and found.contracts:
                    self._contracts[group.removeprefix(_ENTERPRISE)] = dict(found.contracts)
                if group.startswith("budget/"):
                    self._limits[group.removeprefix("budget/")] = BudgetLimits(
                        found.month_microcny if found.HasField("month_microcny") else None,
                        found.year_microcny if found.HasField("year_microcny") else None,
                    )

    # What there is.

    def now_ms(self) -> int:
        """The time that is booked: the clock's, but never before what was booked last. A clock that is set
        back reopens no month and no year.
        """
        return max(self._clock.now().ToMilliseconds(), self._head.time.ToMilliseconds())

    def limits(self, tenant_id: str) -> BudgetLimits | None:
        """A tenant's budget; None: it has none, and nothing limits it."""
        found = self._limits.get(tenant_id, _NO_LIMITS)
        return None if found == _NO_LIMITS else found

    def tenants(self) -> Collection[str]:
        """Those that have a budget, or had one."""
        return self._limits

    def claimed_by(self, enterprise_id: str, contract: str) -> str:
        """The policy whose vouchers have paid for a contract; empty: none has."""
        return self._contracts.get(enterprise_id, {}).get(contract, "")

    def available(self, key: FundKey, limit: int) -> int:
        """What may still be reserved of a fund that is to be granted `limit` in all; it may be below zero."""
        fund = self._funds.get(key, StoredFund())
        return limit - fund.reserved_microcny - fund.spent_microcny - self._promised[key]

    def funds(self, owner: str) -> list[Fund]:
        """An owner's funds, newest first, years before their months; "voucher/": all that begin so."""
        found = [
            self._shown(key, fund)
            for key, fund in self._funds.items()
            if key[0] == owner or (owner.endswith("/") and key[0].startswith(owner))
        ]
        return sorted(found, key=lambda fund: (-start_ms(fund.period), len(fund.period), fund.owner))

    # What changes it.

    def promise(self, allocation_id: str, draft: Draft) -> None:
        """Enter a draft with the next commit of its allocation."""
        self._waiting.setdefault(allocation_id, []).append(draft)
        self._count_promise(draft, 1)

    def writes(self, changed: Sequence[Allocation]) -> list[Write]:
        """The page that the commit of these allocations takes along; none if there is nothing to enter."""
        if not self._waiting:
            return []
        entries = []
        for allocation in changed:
            for draft in self._waiting.pop(allocation.id, ()):
                self._count_promise(draft, -1)
                made = self._enter(draft, allocation.id, allocation.attempt)
                if draft.kind == ledger_pb2.LEDGER_ENTRY_KIND_POST:
                    allocation.receipt.ledger_sequence = made[-1].sequence
                    made[-1].settlement.receipt.CopyFrom(allocation.receipt)
                entries += made
        return self._page(entries)

    def enter(self, draft: Draft, allocation_id: str = "", attempt: int = 0) -> tuple[int, list[Write]]:
        """Enter a draft at once: its sequence, and what is to be committed."""
        entries = self._enter(draft, allocation_id, attempt)
        return self._head.sequence, self._page(entries)

    def claim(self, enterprise_id: str, contract: str, policy_id: str) -> None:
        """A policy's vouchers pay for a contract: stored with the next change of the enterprise's funds."""
        self._contracts.setdefault(enterprise_id, {})[contract] = policy_id

    def set_limits(self, tenant_id: str, limits: BudgetLimits) -> list[Write]:
        """Change a budget, with what its present month and year are granted. What is not limited any more has
        no more to give than it has given already.
        """
        self._limits[tenant_id] = limits
        owner = budget_of(tenant_id)
        wanted = self._budget_now(owner)
        granted = {
            key: limit or 0 for key, limit in wanted.items() if limit is not None or key in self._funds
        }
        entries = list(self._grants(granted, "the budget was set"))
        return [*self._page(entries), self._group(owner)]

    def _budget_now(self, owner: str) -> dict[FundKey, int | None]:
        """What a budget's present month and year are limited to."""
        month, limits = month_of(self.now_ms()), self._limits.get(owner.partition("/")[2], _NO_LIMITS)
        return {(owner, month): limits.month, (owner, year_of(month)): limits.year}

    def _shown(self, key: FundKey, fund: StoredFund) -> Fund:
        owner, period = key
        limits = self._budget_now(owner) if owner.startswith("budget/") else {}
        # What comes back to a fund that has had more than its limit is not there to be had again.
        more = max((limits[key] or 0) - _granted(fund), -fund.available_microcny) if key in limits else 0
        return Fund(
            owner=owner,
            period=period,
            granted_microcny=_granted(fund) + more,
            available_microcny=fund.available_microcny + more,
            reserved_microcny=fund.reserved_microcny,
            spent_microcny=fund.spent_microcny,
        )

    def _count_promise(self, draft: Draft, sign: int) -> None:
        for account, microcny in draft.changes.items():
            named = fund_of(account)
            if named and named[2] == AVAILABLE and microcny < 0:
                self._promised[named[0], named[1]] -= sign * microcny

    def _enter(self, draft: Draft, allocation_id: str, attempt: int) -> list[LedgerEntry]:
        made = [*self._grants(draft.limits, "as published"), self._entry(draft)]
        made[-1].allocation_id, made[-1].attempt = allocation_id, attempt
        return made

    def _grants(self, limits: Mapping[FundKey, int], reason: str) -> Iterable[LedgerEntry]:
        for key, limit in limits.items():
            if key not in self._funds:
                self._add(key, StoredFund())
            fund = self._funds[key]
            more = max(limit - _granted(fund), -fund.available_microcny)
            if more:
                kind = ledger_pb2.LEDGER_ENTRY_KIND_GRANT
                yield self._entry(Draft(kind, grant(*key, more), reason=reason))

    def _entry(self, draft: Draft) -> LedgerEntry:
        self._head.sequence += 1
        self._head.time.FromMilliseconds(self.now_ms())
        for account, microcny in draft.changes.items():
            if named := fund_of(account):
                owner, period, part = named
                _change(self._funds[owner, period], part, microcny)
        time = Timestamp()
        time.CopyFrom(self._head.time)
        return LedgerEntry(
            sequence=self._head.sequence,
            kind=draft.kind,
            time=time,
            legs=legs_of(draft.changes),
            reason=draft.reason,
            corrects_sequence=draft.corrects_sequence,
            settlement=draft.settlement,
        )

    def _page(self, entries: Sequence[LedgerEntry]) -> list[Write]:
        if not entries:
            return []
        self._head.hash = page_hash(self._head.hash, [entry.SerializeToString() for entry in entries])
        page = LedgerPage(entries=entries, hash=self._head.hash)
        month = month_of(self._head.time.ToMilliseconds())
        touched = {
            named[0] for entry in entries for leg in entry.legs if (named := fund_of(leg.account)) is not None
        }
        return [
            Write(LEDGER.key(month, entries[0].sequence), page.SerializeToString()),
            Write(_HEAD, self._head.SerializeToString()),
            *({write.key: write for write in map(self._group, sorted(touched))}.values()),
        ]

    def _add(self, key: FundKey, fund: StoredFund) -> None:
        self._funds[key] = StoredFund()
        self._funds[key].CopyFrom(fund)
        self._keys[_group_of(key[0])].add(key)

    def _group(self, owner: str) -> Write:
        group = _group_of(owner)
        stored = StoredFunds(funds={f"{key[0]}@{key[1]}": self._funds[key] for key in self._keys[group]})
        if group.startswith(_ENTERPRISE):
            stored.contracts.update(self._contracts.get(group.removeprefix(_ENTERPRISE), {}))
        if owner.startswith("budget/"):
            limits = self._limits.get(owner.removeprefix("budget/"), BudgetLimits())
            if limits.month is not None:
                stored.month_microcny = limits.month
            if limits.year is not None:
                stored.year_microcny = limits.year
        return Write(_FUNDS + group, stored.SerializeToString(deterministic=True))


def _group_of(owner: str) -> str:
    """Which funds are stored together: however many policies there are, a commit writes few keys."""
    kind, *names = owner.split("/")
    if kind == "voucher":
        return f"{_ENTERPRISE}{names[1]}" if len(names) > 1 else "voucher"
    return owner


def _granted(fund: StoredFund) -> int:
    return fund.available_microcny + fund.reserved_microcny + fund.spent_microcny


def _change(fund: StoredFund, part: str, microcny: int) -> None:
    # A field of an unsigned kind refuses what is below zero, so nothing is ever overdrawn unseen.
    if part == AVAILABLE:
        fund.available_microcny += microcny
    elif part == RESERVED:
        fund.reserved_microcny += microcny
    elif part == SPENT:
        fund.spent_microcny += microcny
