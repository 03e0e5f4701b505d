"""A price list that would charge for nothing, and tell nobody, is refused."""

from __future__ import annotations

import pytest
from mumian_orchestrator.domain.fields import FieldError
from mumian_orchestrator.domain.money.document import kind_of, read
from mumian_orchestrator.domain.money.offers import Offer, read_offers


def offers_of(what: str) -> tuple[Offer, ...]:
    """A list of one line."""
    price = "cny_per_gib" if what == "egress" else "cny_per_hour"
    fields = read(
        f"kind: offers\noperator: op\nprices:\n"
        f"  - {{what: {what}, {price}: 2, from: 2026-01-01, until: 2026-12-31}}"
    )
    kind_of(fields)
    return read_offers(fields)


@pytest.mark.parametrize("what", ["storage", "Network", "security", "disk", "CPU"])
def test_what_is_not_let_has_no_price_and_is_not_taken_for_a_model(what: str) -> None:
    with pytest.raises(FieldError, match=f"{what}.*has no price; give cpu, memory, egress or"):
        offers_of(what)


@pytest.mark.parametrize("what", ["cpu", "memory", "egress", "H100"])
def test_what_is_let_has_one(what: str) -> None:
    [offer] = offers_of(what)
    assert (offer.what, offer.microcny) == (what, 2_000_000)
