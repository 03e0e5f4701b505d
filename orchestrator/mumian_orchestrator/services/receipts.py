"""Settles what has ended: each allocation gets one receipt, which is stored with its terminal state, and one
entry in the ledger, in the same transaction.
"""

from __future__ import annotations

from mumian.api.v1.fleet_pb2 import Site
from mumian.api.v1.job_pb2 import Allocation
from mumian.api.v1.receipt_pb2 import Receipt
from mumian.storage.v1 import ledger_pb2
from mumian.storage.v1.ledger_pb2 import Settlement

from mumian_orchestrator.domain.job_state import is_live
from mumian_orchestrator.domain.money import ledger
from mumian_orchestrator.domain.money.holds import Amounts, amounts_of, charged, is_limited, total_of
from mumian_orchestrator.domain.money.ledger import budget_of, pool_of, share_of
from mumian_orchestrator.domain.periods import year_of
from mumian_orchestrator.domain.receipt import receipt_of
from mumian_orchestrator.services.agent_sessions import CLOCK_SKEW_MAX_S
from mumian_orchestrator.services.fleet import Fleet
from mumian_orchestrator.services.money.ledger_book import (
    Draft,
    LedgerBook,
)


class Receipts:
    """Receipts at the rates of the sites as they are known now, and what is posted for them."""

    def __init__(self, fleet: Fleet, book: LedgerBook, carbon_kg_microcny: int) -> None:
        self._fleet, self._book, self._carbon_kg_microcny = fleet, book, carbon_kg_microcny

    def settle(self, allocation: Allocation) -> None:
        """Give an allocation its receipt if it has ended, and enter it in the ledger with its next commit.

        What never started gets none, nor what nobody has metered: its site came back without it. All that was
        reserved for it goes back then.
        """
        if is_live(allocation):
            return
        site = self._fleet.facts(allocation.site_id) or Site()
        if allocation.HasField("start_time") and allocation.HasField("end_time"):
            placed_ms = allocation.create_time.ToMilliseconds() - CLOCK_SKEW_MAX_S * 1000
            held_ms_max = max(0, self._book.now_ms() - placed_ms)
            receipt = receipt_of(allocation, site, self._carbon_kg_microcny, held_ms_max)
            allocation.receipt.CopyFrom(receipt)
            self._post(allocation, site)
        elif allocation.funding.holds and not allocation.funding.settled:
            nothing = Amounts(0, 0)
            changes = self._charge(allocation, [nothing for _ in allocation.funding.holds])
            self._promise(allocation, ledger_pb2.LEDGER_ENTRY_KIND_VOID, changes, None)

    def _post(self, allocation: Allocation, site: Site) -> None:
        receipt, funding = allocation.receipt, allocation.funding
        used = Amounts(receipt.rent_microcny, receipt.total_microcny - receipt.rent_microcny)
        parts = charged(funding.holds, used, funding.voucher_permille)
        whole = total_of(parts)
        receipt.voucher_microcny = whole.voucher
        # Only a budget makes what was reserved the most that may be asked for.
        receipt.forgone_microcny = used.total - whole.total if is_limited(funding) else 0
        receipt.tenant_microcny = receipt.total_microcny - receipt.forgone_microcny - whole.voucher
        if whole.voucher:
            receipt.voucher_policy_id = funding.voucher_policy_id
        changes = [self._charge(allocation, parts), postings(allocation.tenant_id, site.operator_id, receipt)]
        settlement = Settlement(
            tenant_id=allocation.tenant_id,
            operator_id=site.operator_id,
            site_id=allocation.site_id,
            accelerator_model=self._fleet.accelerator_model(allocation),
            sector=funding.sector,
            district=funding.district,
            voucher_policy_id=receipt.voucher_policy_id,
            enterprise_id=funding.enterprise_id,
        )
        self._promise(allocation, ledger_pb2.LEDGER_ENTRY_KIND_POST, ledger.merged(changes), settlement)

    def _charge(self, allocation: Allocation, parts: list[Amounts]) -> dict[str, int]:
        """Charge each hold its part, and give back what is left of it."""
        funding = allocation.funding
        changes = []
        for hold, part in zip(funding.holds, parts, strict=True):
            kept, year = amounts_of(hold), year_of(hold.month)
            owner = budget_of(allocation.tenant_id)
            if hold.month_budget:
                changes.append(ledger.post(owner, hold.month, kept.tenant, part.tenant))
            if hold.year_budget:
                changes.append(ledger.post(owner, year, kept.tenant, part.tenant))
            if kept.voucher:
                pool = pool_of(funding.voucher_policy_id)
                share = share_of(funding.voucher_policy_id, funding.enterprise_id)
                changes += [ledger.post(of, year, kept.voucher, part.voucher) for of in (pool, share)]
            hold.rent_microcny, hold.other_microcny, hold.voucher_microcny = part
        if funding.holds:
            funding.settled = True
        return ledger.merged(changes)

    def _promise(
        self,
        allocation: Allocation,
        kind: ledger_pb2.LedgerEntryKind.ValueType,
        changes: dict[str, int],
        settlement: Settlement | None,
    ) -> None:
        self._book.promise(allocation.id, Draft(kind, changes, settlement=settlement))


def postings(tenant_id: str, operator_id: str, receipt: Receipt) -> dict[str, int]:
    """Who owes, and who has earned."""
    return {
        f"owed/{tenant_id}": receipt.tenant_microcny,
        f"owed/city/{receipt.voucher_policy_id}": receipt.voucher_microcny,
        f"forgone/{operator_id}": receipt.forgone_microcny,
        f"earned/{operator_id}": -(receipt.total_microcny - receipt.carbon_microcny),
        "carbon": -receipt.carbon_microcny,
    }
