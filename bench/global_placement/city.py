"""The sites of a made-up city and how far its zones are from them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from random import Random

from mumian.api.v1.fleet_pb2 import (
    FIGURE_SOURCE_MEASURED,
    HEALTH_READY,
    TIER_CITY,
    TIER_EDGE,
    TIER_HUB,
    Link,
    Prices,
    Pue,
    Site,
    Tier,
)

CNY = 1_000_000
ZONES = tuple(f"zone-{number}" for number in range(8))
RADIUS_KM = 40.0
# p99 over a metropolitan network: the equipment, then switches and queues on the way.
NEAREST_US = 1_000
KM_US = 100
# A hub is far beyond the city.
HUB_US = (12_000, 22_000)
OPERATORS = 6


def sites_of(rng: Random, count: int) -> tuple[list[Site], list[Link]]:
    """Sites at random places: of ten, six at the edge, three in the city's data centres, one a hub.

    Returns:
        The sites and a measured link from every zone to each.
    """
    zones = [_place(rng) for _ in ZONES]
    sites, links = [], []
    for number in range(count):
        tier = TIER_HUB if number % 10 == 3 else TIER_CITY if number % 10 in (1, 5, 8) else TIER_EDGE
        site = _site(rng, f"s{number:04}", tier)
        place = _place(rng)
        sites.append(site)
        for zone_id, zone in zip(ZONES, zones, strict=True):
            near_us = NEAREST_US + round(KM_US * math.dist(place, zone))
            rtt_us = rng.randint(*HUB_US) if tier == TIER_HUB else near_us
            links.append(
                Link(
                    from_id=zone_id,
                    to_site_id=site.id,
                    rtt_p50_us=rtt_us * 7 // 10,
                    rtt_p99_us=rtt_us,
                    source=FIGURE_SOURCE_MEASURED,
                    sample_count=100,
                )
            )
    return sites, links


def rtts_of(links: Iterable[Link]) -> dict[str, dict[str, int]]:
    """For each site the p99 from each zone, in microseconds."""
    rtts: dict[str, dict[str, int]] = defaultdict(dict)
    for link in links:
        rtts[link.to_site_id][link.from_id] = link.rtt_p99_us
    return rtts


def _place(rng: Random) -> tuple[float, float]:
    """Kilometres from the middle; denser there."""
    angle, radius_km = rng.uniform(0, 2 * math.pi), RADIUS_KM * rng.random()
    return radius_km * math.cos(angle), radius_km * math.sin(angle)


def _site(rng: Random, site_id: str, tier: Tier.ValueType) -> Site:
    """Near the users everything is dearer: rent, power and its overhead."""
    rent = {TIER_EDGE: 1.5, TIER_CITY: 1.0, TIER_HUB: 0.6}[tier] * rng.uniform(0.8, 1.2)
    pue_permille = rng.randint(
        *{TIER_EDGE: (1350, 1650), TIER_CITY: (1250, 1450), TIER_HUB: (1100, 1220)}[tier]
    )
    tariff_cny = {TIER_EDGE: 0.95, TIER_CITY: 0.75, TIER_HUB: 0.38}[tier] * rng.uniform(0.85, 1.15)
    return Site(
        id=site_id,
        operator_id=f"operator-{rng.randrange(OPERATORS)}",
        tier=tier,
        jurisdiction="CN-GZ" if tier == TIER_HUB else rng.choice(["CN-GD-GZ", "CN-GD-GZ", "CN-GD-FS"]),
        pue=Pue(
            average_permille=pue_permille, marginal_permille=pue_permille - 50, source=FIGURE_SOURCE_MEASURED
        ),
        prices=Prices(
            cpu_core_hour_microcny=round(0.12 * rent * CNY),
            memory_gib_hour_microcny=round(0.015 * rent * CNY),
            accelerator_hour_microcny={
                "H100": round(14 * rent * CNY),
                "Ascend-910B": round(6 * rent * CNY),
            },
            energy_kwh_microcny=round(tariff_cny * CNY),
        ),
        carbon_g_per_kwh=rng.randint(200, 450) if tier == TIER_HUB else rng.randint(400, 600),
        health=HEALTH_READY,
    )
