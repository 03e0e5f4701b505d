"""What a job would cost where it would go now, and who would pay."""

from __future__ import annotations

from mumian.api.v1.money_pb2 import Quote
from mumian.cli import figures
from mumian.cli.session import Session

_SOURCES = {"offer": "price list", "site": "site"}


def print_quote(session: Session, quote: Quote) -> None:
    """A line for each site, the sum, and what would be reserved of a budget."""
    from mumian.cli.tables import table

    has_egress = bool(quote.egress_microcny_per_hour)
    has_vouchers = any(line.voucher_reason for line in quote.lines)
    optional = (*(("egress",) if has_egress else ()), *(("voucher",) if has_vouchers else ()))
    right = ("tasks", "rent", "energy", "carbon", *optional, "to pay")
    made = table("quote, CNY/h", "operator", "price by", *right, right=right)
    for line in quote.lines:
        to_pay = line.rent_microcny_per_hour + line.energy_microcny_per_hour + line.carbon_microcny_per_hour
        to_pay += line.egress_microcny_per_hour
        made.add_row(
            line.site_id,
            line.operator_id or figures.UNKNOWN,
            _SOURCES.get(line.price_source, line.price_source),
            str(line.task_count),
            figures.cny(line.rent_microcny_per_hour),
            figures.cny(line.energy_microcny_per_hour),
            figures.cny(line.carbon_microcny_per_hour),
            *((figures.cny(line.egress_microcny_per_hour),) if has_egress else ()),
            *((figures.cny(line.voucher_microcny_per_hour),) if has_vouchers else ()),
            figures.cny(to_pay - line.voucher_microcny_per_hour),
        )
    session.console.print(made)
    for line in quote.lines:
        if line.voucher_reason:
            session.console.print(f"{line.site_id}: {line.voucher_reason}", style="dim", soft_wrap=True)
    if quote.HasField("reserve_microcny"):
        session.console.print(
            f"CNY {figures.exact_cny(quote.reserve_microcny)} of the budget would be reserved; "
            "what is not used goes back"
        )
