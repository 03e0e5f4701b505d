"""What a job used, from the platform's own account of its allocations and the site's declared figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mumian.api.v1.fleet_pb2 import Site
from mumian.api.v1.job_pb2 import Job

_JOULE_PER_KWH = 3_600_000


@dataclass(frozen=True, slots=True)
class Usage:
    """Of all allocations of one job together."""

    name: str
    site: str
    held_s: float
    it_j: float
    meter_j: float
    rent_cny: float
    energy_cny: float
    carbon_g: float

    @property
    def pue(self) -> float:
        """Energy at the meter for each joule of the IT."""
        return self.meter_j / self.it_j if self.it_j else 0.0


def usage_of(job: Job, sites: Mapping[str, Site]) -> Usage:
    """The account of a job that has ended."""
    held_s = it_j = meter_j = rent_cny = energy_cny = carbon_g = 0.0
    for allocation in job.allocations:
        site = sites[allocation.site_id]
        seconds = (
            allocation.end_time.ToNanoseconds() - allocation.start_time.ToNanoseconds()
        ) / 1e9  # both by the agent's clock
        at_meter_j = allocation.it_energy_uj / 1e6 * site.pue.marginal_permille / 1000
        held_s += seconds
        it_j += allocation.it_energy_uj / 1e6
        meter_j += at_meter_j
        rent_cny += allocation.cost.rent_microcny_per_hour / 1e6 * seconds / 3600
        energy_cny += at_meter_j / _JOULE_PER_KWH * site.prices.energy_kwh_microcny / 1e6
        carbon_g += at_meter_j / _JOULE_PER_KWH * site.carbon_g_per_kwh
    names = ", ".join(sorted({allocation.site_id for allocation in job.allocations}))
    return Usage(job.spec.name, names, held_s, it_j, meter_j, rent_cny, energy_cny, carbon_g)
