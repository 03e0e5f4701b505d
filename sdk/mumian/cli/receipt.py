"""`mumian receipt`."""

from __future__ import annotations

import json
from collections.abc import Iterable

import click

from mumian.api.v1.job_pb2 import Job
from mumian.api.v1.receipt_pb2 import Receipt
from mumian.cli import figures, words
from mumian.cli.jobs import JobArgument, is_live
from mumian.cli.json_output import as_dict
from mumian.cli.session import Session, pass_session, shared_options

_USED = (
    *("held_ms", "core_ms", "memory_mib_s", "accelerator_ms", "it_energy_uj", "facility_energy_uj"),
    *("carbon_mg", "rent_microcny", "energy_microcny", "carbon_microcny", "egress_microcny"),
    *("total_microcny", "forgone_microcny", "voucher_microcny", "tenant_microcny"),
)


@click.command()
@JobArgument
@shared_options
@pass_session
def receipt(session: Session, job_id: str) -> None:
    """Show what a job's ended tasks have used: hours, energy, CO2 and money."""
    job = session.client.get(job_id)
    receipts = {a.id: a.receipt for a in job.allocations if a.HasField("receipt")}
    live_count = sum(is_live(allocation) for allocation in job.allocations)
    if session.json:
        shown = {
            "job_id": job.id,
            "live_allocation_count": live_count,
            "receipts": [{"allocation_id": id_, **as_dict(each)} for id_, each in receipts.items()],
            "total": {field: as_dict(total(receipts.values()))[field] for field in _USED},
        }
        click.echo(json.dumps(shown, indent=2))
        return
    if receipts:
        _print(session, job)
    else:
        session.console.print(f"job {job.id} has no receipt yet: each of its tasks gets one when it ends")
    if live_count and receipts:
        session.console.print(
            f"{figures.count(live_count, 'task')} still to end; `mumian status {job.id}` shows them",
            style="yellow",
        )


def total(receipts: Iterable[Receipt]) -> Receipt:
    """What several used together; without what each was worked out with."""
    made = Receipt()
    for each in receipts:
        for field in _USED:
            setattr(made, field, getattr(made, field) + getattr(each, field))
    return made


def _print(session: Session, job: Job) -> None:
    from mumian.cli.tables import table

    ended = [a for a in job.allocations if a.HasField("receipt")]
    has_devices = any(a.receipt.accelerator_ms for a in ended)
    used = ("core h", *(("device h",) if has_devices else ()), "IT kWh", "meter kWh", "kg CO2")
    right = ("held", *used, "CNY")
    made = table("task", "site", "state", *right, right=right)

    def cells(each: Receipt) -> tuple[str, ...]:
        return (
            figures.hours(each.core_ms),
            *((figures.hours(each.accelerator_ms),) if has_devices else ()),
            figures.kwh(each.it_energy_uj),
            figures.kwh(each.facility_energy_uj),
            figures.kg(each.carbon_mg),
            figures.fine_cny(each.total_microcny),
        )

    for a in ended:
        held = figures.duration(a.receipt.held_ms / 1000)
        task, state = a.id.removeprefix(f"{job.id}."), words.allocation_state(a.state)
        made.add_row(task, a.site_id, state, held, *cells(a.receipt))
    whole = total(a.receipt for a in ended)
    if len(ended) > 1:
        made.add_section()
        made.add_row("all", "", "", "", *cells(whole))
    session.console.print(made)
    parts = ("rent", "energy", "carbon", *(("egress",) if whole.egress_microcny else ()))
    sum_ = " + ".join(f"{part} {figures.fine_cny(getattr(whole, f'{part}_microcny'))}" for part in parts)
    session.console.print(f"CNY {figures.fine_cny(whole.total_microcny)} = {sum_}")
    if whole.voucher_microcny or whole.forgone_microcny:
        session.console.print(
            f"of it CNY {figures.fine_cny(whole.voucher_microcny)} is paid by vouchers, "
            f"CNY {figures.fine_cny(whole.forgone_microcny)} is borne by the operator, "
            f"CNY {figures.fine_cny(whole.tenant_microcny)} is to be paid"
        )
    for site_id, each in {a.site_id: a.receipt for a in ended}.items():
        session.console.print(
            f"{site_id}: PUE of one more watt {figures.pue(each.pue_marginal_permille)} "
            f"({words.source(each.pue_source)}), CNY {figures.cny(each.energy_kwh_microcny)} and "
            f"{each.carbon_mg_per_kwh / 1000:.0f} g CO2 a kWh",
            style="dim",
        )
