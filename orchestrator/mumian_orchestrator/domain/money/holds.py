"""What is reserved for an allocation, and what becomes of it when the allocation ends.

The maximum is fixed when the allocation is committed: so much rent, so much for energy, carbon and
egress, so much of the rent by vouchers. What it really used is charged against its holds, oldest first, and
never more than they hold: rent against rent, the rest against the rest, so that the tenant's part cannot
exceed what was reserved of its budget either. What is above that, the operator bears.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mumian.api.v1.money_pb2 import Funding, Hold

HOUR_MS = 3_600_000
# The `funded_ms` of what runs on after its tenant's budget was removed: longer than anything runs.
FOR_EVER_MS = 2**53


class Price(NamedTuple):
    """What an hour costs at most, and what vouchers pay of the rent."""

    rent_microcny_per_hour: int
    other_microcny_per_hour: int
    voucher_permille: int = 0

    def over(self, length_ms: int) -> Amounts:
        """For so long, rounded up, so that nothing that is used is above it."""
        rent = -(-self.rent_microcny_per_hour * length_ms // HOUR_MS)
        other = -(-self.other_microcny_per_hour * length_ms // HOUR_MS)
        return Amounts(rent, other, rent * self.voucher_permille // 1000)


class Amounts(NamedTuple):
    """Rent, all else (energy, carbon, egress), and the part of the rent that vouchers pay, in micro-CNY."""

    rent: int
    other: int
    voucher: int = 0

    @property
    def total(self) -> int:
        """All that the operator gets."""
        return self.rent + self.other

    @property
    def tenant(self) -> int:
        """What the tenant pays."""
        return self.total - self.voucher

    def plus(self, other: Amounts) -> Amounts:
        """The sum."""
        return Amounts(self.rent + other.rent, self.other + other.other, self.voucher + other.voucher)

    def less(self, other: Amounts) -> Amounts:
        """The difference."""
        return Amounts(self.rent - other.rent, self.other - other.other, self.voucher - other.voucher)


NOTHING = Amounts(0, 0)


def is_limited(funding: Funding) -> bool:
    """Whether a budget limits how long an allocation runs, and what may be asked for it."""
    return 0 < funding.funded_ms < FOR_EVER_MS


def amounts_of(hold: Hold) -> Amounts:
    """What a hold keeps."""
    return Amounts(hold.rent_microcny, hold.other_microcny, hold.voucher_microcny)


def total_of(amounts: Iterable[Amounts]) -> Amounts:
    """The sum of several."""
    whole = NOTHING
    for each in amounts:
        whole = whole.plus(each)
    return whole


def add_hold(funding: Funding, kept: Hold) -> None:
    """Keep more; what counts in the same budgets of the same month is one hold."""
    last = funding.holds[-1] if funding.holds else None
    if last is None or _counts_in(last) != _counts_in(kept):
        funding.holds.append(kept)
        return
    last.rent_microcny += kept.rent_microcny
    last.other_microcny += kept.other_microcny
    last.voucher_microcny += kept.voucher_microcny


def _counts_in(hold: Hold) -> tuple[str, bool, bool]:
    return hold.month, hold.month_budget, hold.year_budget


def charged(holds: Sequence[Hold], used: Amounts, voucher_permille: int) -> list[Amounts]:
    """What is charged to each hold for what was used (its rent and its other), in their order."""
    rent, other = used.rent, used.other
    parts = []
    for hold in holds:
        taken_rent, taken_other = min(rent, hold.rent_microcny), min(other, hold.other_microcny)
        voucher = min(hold.voucher_microcny, taken_rent * voucher_permille // 1000)
        parts.append(Amounts(taken_rent, taken_other, voucher))
        rent, other = rent - taken_rent, other - taken_other
    return parts
