"""What an ended allocation has used, and what that comes to: whole numbers, every figure rounded down."""

from __future__ import annotations

from typing import NamedTuple

from mumian.api.v1.fleet_pb2 import Site
from mumian.api.v1.job_pb2 import Allocation
from mumian.api.v1.receipt_pb2 import Receipt

_HOUR_MS = 3_600_000
_UJ_PER_KWH = 3_600_000_000_000
_MG_PER_KG = 1_000_000
# A site whose PUE is unknown counts as 1, as in the core.
_PUE_LEAST_PERMILLE = 1000


class Rates(NamedTuple):
    """What changes by the hour at a site."""

    energy_kwh_microcny: int
    carbon_mg_per_kwh: int


def rates_over(site: Site, start_ms: int, end_ms: int) -> Rates:
    """The means over a span of time; where no forecast reaches, the site's flat figures hold."""
    flat = Rates(site.prices.energy_kwh_microcny, site.carbon_g_per_kwh * 1000)
    first_ms, hours = site.forecast.first_hour_unix_s * 1000, site.forecast.hours
    if end_ms <= start_ms:
        end_ms = start_ms + 1
    sums, uncovered_ms = [0, 0], end_ms - start_ms
    begin = max(0, (start_ms - first_ms) // _HOUR_MS)
    for index in range(begin, min(len(hours), (end_ms - 1 - first_ms) // _HOUR_MS + 1)):
        hour, hour_ms = hours[index], first_ms + index * _HOUR_MS
        covered_ms = min(hour_ms + _HOUR_MS, end_ms) - max(hour_ms, start_ms)
        figures = (hour.energy_kwh_microcny, hour.carbon_g_per_kwh * 1000)
        sums = [total + figure * covered_ms for total, figure in zip(sums, figures, strict=True)]
        uncovered_ms -= covered_ms
    whole = [total + figure * uncovered_ms for total, figure in zip(sums, flat, strict=True)]
    return Rates(*(total // (end_ms - start_ms) for total in whole))


def receipt_of(
    allocation: Allocation, site: Site, carbon_kg_microcny: int, held_ms_max: int | None = None
) -> Receipt:
    """The receipt of an allocation that has a start and an end, at the rates of its site.

    Its time is what the site tells of it, but never more than `held_ms_max`: nothing can have run before it
    was placed.
    """
    start_ms, end_ms = allocation.start_time.ToMilliseconds(), allocation.end_time.ToMilliseconds()
    held_ms = max(0, end_ms - start_ms)  # a clock that was set back in between must not make it negative
    if held_ms_max is not None:
        held_ms = min(held_ms, held_ms_max)
    rates = rates_over(site, start_ms, start_ms + held_ms)
    pue_permille = max(_PUE_LEAST_PERMILLE, site.pue.marginal_permille)
    devices_milli = sum(share.milli for share in allocation.devices)
    made = Receipt(
        held_ms=held_ms,
        core_ms=allocation.resources.cpu_milli * held_ms // 1000,
        memory_mib_s=allocation.resources.memory_mib * held_ms // 1000,
        accelerator_ms=devices_milli * held_ms // 1000,
        it_energy_uj=allocation.it_energy_uj,
        facility_energy_uj=allocation.it_energy_uj * pue_permille // 1000,
        pue_marginal_permille=pue_permille,
        pue_source=site.pue.marginal_source or site.pue.source,
        energy_kwh_microcny=rates.energy_kwh_microcny,
        carbon_mg_per_kwh=rates.carbon_mg_per_kwh,
        rent_microcny_per_hour=allocation.cost.rent_microcny_per_hour,
        carbon_kg_microcny=carbon_kg_microcny,
        egress_microcny_per_hour=allocation.cost.egress_microcny_per_hour,
    )
    made.rent_microcny = made.rent_microcny_per_hour * held_ms // _HOUR_MS
    made.energy_microcny = made.facility_energy_uj * made.energy_kwh_microcny // _UJ_PER_KWH
    made.carbon_mg = made.facility_energy_uj * made.carbon_mg_per_kwh // _UJ_PER_KWH
    made.carbon_microcny = made.carbon_mg * carbon_kg_microcny // _MG_PER_KG
    made.egress_microcny = made.egress_microcny_per_hour * held_ms // _HOUR_MS
    made.total_microcny = (
        made.rent_microcny + made.energy_microcny + made.carbon_microcny + made.egress_microcny
    )
    return made
