"""What was posted is never changed: it is given back, or taken back, by counter-entries."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from mumian.api.v1 import error_pb2
from mumian.api.v1.job_pb2 import Allocation, Job
from mumian.api.v1.money_pb2 import StatementLine
from mumian.storage.v1 import ledger_pb2
from mumian.storage.v1.ledger_pb2 import Corrections as Stored
from mumian.storage.v1.ledger_pb2 import Settlement

from mumian_orchestrator.domain.errors import FieldFault, RequestRefusedError, invalid
from mumian_orchestrator.domain.money import ledger
from mumian_orchestrator.domain.money.holds import amounts_of
from mumian_orchestrator.domain.money.ledger import budget_of, pool_of, share_of
from mumian_orchestrator.domain.money.shortage import cny
from mumian_orchestrator.domain.periods import year_of
from mumian_orchestrator.ports.store import Write
from mumian_orchestrator.services.commit_log import CommitLog
from mumian_orchestrator.services.fleet import Fleet
from mumian_orchestrator.services.money.ledger_book import (
    Draft,
    LedgerBook,
)

_CORRECTIONS = "ledger/corrections/"
REASON_LENGTH_MAX, REQUEST_ID_LENGTH_MAX = 200, 64
CORRECTIONS_OF_ONE_MAX = 1000


class Corrections:
    """Refunds and clawbacks of ended allocations, each at most once for its request id."""

    def __init__(self, fleet: Fleet, book: LedgerBook, commit_log: CommitLog) -> None:
        self._fleet, self._book, self._log = fleet, book, commit_log
        self._stored: dict[str, Stored] = {}

    def load(self, stored: Mapping[str, bytes]) -> None:
        """Take over what is stored."""
        for key, value in stored.items():
            if key.startswith(_CORRECTIONS):
                self._stored[key.removeprefix(_CORRECTIONS)] = Stored.FromString(value)

    def correct(
        self,
        job: Job | None,
        allocation_id: str,
        microcny: int,
        reason: str,
        request_id: str,
        *,
        clawback: bool,
    ) -> tuple[StatementLine, asyncio.Future[None]]:
        """Give back so much of an allocation's charge (0: all that is left), to vouchers and tenant as they
        had paid; or take back from the tenant what vouchers have paid.

        Raises:
            RequestRefusedError: INVALID_FIELD, ALLOCATION_NOT_FOUND or NOT_CHARGED; nothing has changed.
        """
        _check(reason, request_id)
        allocation = _posted(job, allocation_id)
        done = self._stored.get(allocation_id, Stored())
        known = done.sequence_by_request_id.get(request_id)
        if known is not None:
            return StatementLine(ledger_sequence=known, allocation_id=allocation_id), self._log.append([])
        receipt = allocation.receipt
        left_tenant = receipt.tenant_microcny + done.clawed_microcny - done.tenant_microcny
        left_voucher = receipt.voucher_microcny - done.voucher_microcny
        left = left_voucher if clawback else left_tenant + left_voucher
        microcny = microcny or left
        full = len(done.sequence_by_request_id) >= CORRECTIONS_OF_ONE_MAX
        if not 0 < microcny <= left or full:
            raise RequestRefusedError(
                error_pb2.ERROR_REASON_NOT_CHARGED,
                f"CNY {cny(microcny)} cannot be taken from the charge of {allocation_id}: CNY {cny(left)} "
                "of it " + ("was paid by vouchers" if clawback else "is left to give back"),
                [FieldFault("microcny", f"({microcny}) must be at most {left}")],
            )
        # Whole micro-CNY: the vouchers' part is rounded up where the tenant's would not be enough.
        voucher = microcny if clawback else max(microcny * left_voucher // left, microcny - left_tenant)
        tenant = 0 if clawback else microcny - voucher
        draft = self._draft(allocation, tenant, voucher, reason, clawback=clawback)
        sequence, writes = self._book.enter(draft, allocation_id, allocation.attempt)
        done.tenant_microcny += tenant
        done.voucher_microcny += voucher
        done.clawed_microcny += voucher if clawback else 0
        done.sequence_by_request_id[request_id] = sequence
        self._stored[allocation_id] = done
        writes.append(Write(_CORRECTIONS + allocation_id, done.SerializeToString(deterministic=True)))
        line = StatementLine(
            ledger_sequence=sequence,
            allocation_id=allocation_id,
            tenant_id=allocation.tenant_id,
            site_id=allocation.site_id,
            forgone_microcny=0 if clawback else microcny,
            voucher_microcny=-voucher,
            tenant_microcny=voucher if clawback else -tenant,
            reason=reason,
        )
        return line, self._log.append(writes)

    def _draft(
        self, allocation: Allocation, tenant: int, voucher: int, reason: str, *, clawback: bool
    ) -> Draft:
        receipt, funding = allocation.receipt, allocation.funding
        site = self._fleet.facts(allocation.site_id)
        operator_id = site.operator_id if site else ""
        changes = [self._back_to_funds(allocation, tenant, voucher)]
        city = f"owed/city/{receipt.voucher_policy_id}"
        if clawback:
            changes.append({f"owed/{allocation.tenant_id}": voucher, city: -voucher})
        else:
            changes.append(
                {
                    f"owed/{allocation.tenant_id}": -tenant,
                    city: -voucher,
                    f"forgone/{operator_id}": tenant + voucher,
                }
            )
        refund, claw = ledger_pb2.LEDGER_ENTRY_KIND_REFUND, ledger_pb2.LEDGER_ENTRY_KIND_CLAWBACK
        return Draft(
            claw if clawback else refund,
            ledger.merged(changes),
            settlement=Settlement(
                tenant_id=allocation.tenant_id,
                operator_id=operator_id,
                site_id=allocation.site_id,
                sector=funding.sector,
                district=funding.district,
                voucher_policy_id=receipt.voucher_policy_id,
                enterprise_id=funding.enterprise_id,
            ),
            reason=reason,
            corrects_sequence=receipt.ledger_sequence,
        )

    def _back_to_funds(self, allocation: Allocation, tenant: int, voucher: int) -> dict[str, int]:
        """To the funds that it came from, the newest month first."""
        done = self._stored.get(allocation.id, Stored())
        given, voucher_given = done.tenant_microcny, done.voucher_microcny
        funding, owner = allocation.funding, budget_of(allocation.tenant_id)
        changes = []
        for hold in reversed(funding.holds):
            charged = amounts_of(hold)
            skipped, voucher_skipped = min(given, charged.tenant), min(voucher_given, charged.voucher)
            given, voucher_given = given - skipped, voucher_given - voucher_skipped
            part = min(tenant, charged.tenant - skipped)
            voucher_part = min(voucher, charged.voucher - voucher_skipped)
            tenant, voucher = tenant - part, voucher - voucher_part
            if hold.month_budget:
                changes.append(ledger.give_back(owner, hold.month, part))
            if hold.year_budget:
                changes.append(ledger.give_back(owner, year_of(hold.month), part))
            if voucher_part:
                pool = pool_of(funding.voucher_policy_id)
                share = share_of(funding.voucher_policy_id, funding.enterprise_id)
                changes += [ledger.give_back(of, year_of(hold.month), voucher_part) for of in (pool, share)]
        return ledger.merged(changes)


def _posted(job: Job | None, allocation_id: str) -> Allocation:
    for allocation in job.allocations if job else ():
        if allocation.id == allocation_id and allocation.receipt.ledger_sequence:
            return allocation
    raise RequestRefusedError(
        error_pb2.ERROR_REASON_ALLOCATION_NOT_FOUND,
        f"allocation ({allocation_id}) has not been charged; `mumian statement` lists what was; name its "
        "tenant, too, if its job was put away",
    )


def _check(reason: str, request_id: str) -> None:
    faults = []
    if not 0 < len(reason) <= REASON_LENGTH_MAX or not reason.isprintable():
        faults.append(FieldFault("reason", f"must be one line of 1 to {REASON_LENGTH_MAX} characters"))
    if not 0 < len(request_id) <= REQUEST_ID_LENGTH_MAX:
        faults.append(FieldFault("request_id", f"must have 1 to {REQUEST_ID_LENGTH_MAX} characters"))
    if faults:
        raise invalid(faults)
