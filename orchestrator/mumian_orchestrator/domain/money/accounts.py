"""Accounts: what the ledger's entries come to for one tenant or operator."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mumian.api.v1.money_pb2 import Statement, StatementLine
from mumian.storage.v1 import ledger_pb2
from mumian.storage.v1.ledger_pb2 import LedgerEntry

_SUMMED = (
    "rent_microcny",
    "energy_microcny",
    "carbon_microcny",
    "egress_microcny",
    "forgone_microcny",
    "voucher_microcny",
    "tenant_microcny",
)


def lines_of(entries: Iterable[LedgerEntry]) -> Iterator[StatementLine]:
    """One line for each posting and each correction."""
    for entry in entries:
        if not entry.HasField("settlement"):
            continue
        about = entry.settlement
        line = StatementLine(
            ledger_sequence=entry.sequence,
            time=entry.time,
            allocation_id=entry.allocation_id,
            tenant_id=about.tenant_id,
            operator_id=about.operator_id,
            site_id=about.site_id,
            reason=entry.reason,
        )
        if entry.kind == ledger_pb2.LEDGER_ENTRY_KIND_POST:
            for field in _SUMMED:
                setattr(line, field, getattr(about.receipt, field))
        else:
            # What the legs say: a refund is borne by the operator, a clawback by the tenant.
            owed = {leg.account: leg.microcny for leg in entry.legs}
            line.tenant_microcny = owed.get(f"owed/{about.tenant_id}", 0)
            line.voucher_microcny = owed.get(f"owed/city/{about.voucher_policy_id}", 0)
            line.forgone_microcny = owed.get(f"forgone/{about.operator_id}", 0)
        yield line


def add_to_total(statement: Statement, lines: Iterable[StatementLine]) -> None:
    """Count lines in a statement's total."""
    for line in lines:
        for field in _SUMMED:
            setattr(statement.total, field, getattr(statement.total, field) + getattr(line, field))
