"""Ceilings of PUE by region and date of building, which sites break them, what a better PUE would save."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import NamedTuple

from mumian.api.v1.fleet_pb2 import Site

from mumian_orchestrator.domain.fields import FieldError, Fields
from mumian_orchestrator.domain.money.document import covers, day

_HOURS_A_YEAR = 8760
_RETROFIT_PERMILLE = 1150


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The highest average PUE in a region, for sites built in some span of time."""

    region: str
    permille: int
    built_from: date
    built_until: date


@dataclass(frozen=True, slots=True)
class PuePolicy:
    """As the city has published it; an empty one has no ceilings."""

    ceilings: tuple[Ceiling, ...] = ()
    built: Mapping[str, date] = field(default_factory=dict)  # by site
    retrofit_permille: int = _RETROFIT_PERMILLE  # what a retrofit may reach

    def ceiling_permille(self, site: Site) -> int | None:
        """The one of the narrowest region; None: none is set."""
        built = self.built.get(site.id)
        fitting = [
            each
            for each in self.ceilings
            if covers(each.region, site.jurisdiction)
            # Where nobody knows when it was built, it counts as new.
            and each.built_from <= (built or date.max) <= each.built_until
        ]
        narrowest = max((len(each.region) for each in fitting), default=0)
        return min((each.permille for each in fitting if len(each.region) == narrowest), default=None)

    def keeps(self, site: Site) -> bool:
        """Whether a site keeps its ceiling. One whose PUE nobody knows keeps none."""
        ceiling = self.ceiling_permille(site)
        return ceiling is None or 0 < site.pue.average_permille <= ceiling


class Retrofit(NamedTuple):
    """What a better PUE would save at a site, in a year at the power that its IT draws now."""

    site_id: str
    pue_permille: int
    ceiling_permille: int | None
    target_permille: int
    it_power_mw: int
    saved_kwh_per_year: int
    saved_microcny_per_year: int
    saved_kg_co2_per_year: int


def retrofit_of(site: Site, policy: PuePolicy) -> Retrofit:
    """By the figures of the site as it is."""
    ceiling = policy.ceiling_permille(site)
    target = min(policy.retrofit_permille, ceiling or policy.retrofit_permille)
    better_by = max(0, site.pue.average_permille - target)
    saved_kwh = site.it_power_mw * better_by * _HOURS_A_YEAR // 10**9
    return Retrofit(
        site.id,
        site.pue.average_permille,
        ceiling,
        target,
        site.it_power_mw,
        saved_kwh,
        saved_kwh * site.prices.energy_kwh_microcny,
        saved_kwh * site.carbon_g_per_kwh // 1000,
    )


def read_pue_policy(fields: Fields) -> PuePolicy:
    """From the fields of a document of kind `pue`.

    Raises:
        FieldError: something in it is wrong.
    """
    ceilings = fields.items("ceilings", _ceiling)
    built: dict[str, date] = {}

    def site(each: Fields) -> None:
        built[each.text("id")] = day(each, "built")

    fields.items("sites", site, least=0)
    retrofit = _ratio(fields, "retrofit_pue") if fields.has("retrofit_pue") else _RETROFIT_PERMILLE
    fields.end()
    return PuePolicy(ceilings, built, retrofit)


def _ceiling(fields: Fields) -> Ceiling:
    return Ceiling(
        fields.text("region"),
        _ratio(fields, "pue"),
        day(fields, "built_from", date.min),
        day(fields, "built_until", date.max),
    )


def _ratio(fields: Fields, name: str) -> int:
    value = fields.number(name)
    if not 1 <= value < 10:
        raise FieldError(f"{fields.at(name)} ({value:g}) must be a PUE: at least 1, and below 10")
    return round(value * 1000)
