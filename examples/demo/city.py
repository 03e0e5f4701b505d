"""The demo's city: who is where, how far apart, and what each place charges and burns. Facts, no behaviour.

Prices and figures of PUE are of the size that operators publish; they are configuration, as in a real site.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Place:
    """A data centre or an edge location of some operator."""

    id: str
    title: str
    tier: str
    jurisdiction: str
    pue: float
    core_hour_cny: float
    energy_kwh_cny: float
    carbon_g_per_kwh: int


@dataclass(frozen=True, slots=True)
class UserZone:
    """Where users are."""

    id: str
    title: str


EDGE = Place("gz-nansha", "an edge room near the users", "edge", "CN-GD-GZ", 1.45, 0.26, 0.85, 430)
CITY = Place("gz-tianhe", "a data centre in the city", "city", "CN-GD-GZ", 1.30, 0.21, 0.78, 430)
HUB = Place("sg-shaoguan", "the remote hub, 230 km north", "hub", "CN-GD-SG", 1.18, 0.12, 0.52, 350)
PLACES = (EDGE, CITY, HUB)

NANSHA = UserZone("nansha-district", "headsets in Nansha")
EXCHANGE = UserZone("tianhe-exchange", "traders in Tianhe")
ZONES = (NANSHA, EXCHANGE)

# Round trips in ms, from a zone or a site to a site. The proxies make them; the agents find them out.
RTT_MS: Mapping[tuple[str, str], float] = {
    (NANSHA.id, EDGE.id): 2.0,
    (NANSHA.id, CITY.id): 5.5,
    (NANSHA.id, HUB.id): 14.0,
    (EXCHANGE.id, EDGE.id): 5.5,
    (EXCHANGE.id, CITY.id): 2.0,
    (EXCHANGE.id, HUB.id): 14.0,
    (EDGE.id, CITY.id): 5.0,
    (CITY.id, EDGE.id): 5.0,
    (EDGE.id, HUB.id): 14.0,
    (HUB.id, EDGE.id): 14.0,
    (CITY.id, HUB.id): 13.0,
    (HUB.id, CITY.id): 13.0,
}

CORES_PER_SITE = 2
CORE_ACTIVE_POWER_W = 12
# 100 probes at 20 a second: what the agents measured while everything was starting is forgotten after 5 s.
PROBE_INTERVAL_MS, PROBE_WINDOW = 50, 100
PROBE_WINDOW_S = PROBE_INTERVAL_MS * PROBE_WINDOW / 1000


def coordinator_config(listen: str, etcd: str, reflectors: Mapping[str, str]) -> dict[str, Any]:
    """What `mumian-coordinator` reads."""
    zones = [{"id": zone.id, "title": zone.title, "reflector": reflectors[zone.id]} for zone in ZONES]
    return {"listen": listen, "etcd": etcd, "zones": zones}


def agent_config(
    place: Place, coordinator: str, state_dir: Path, reflector: str, routes: Mapping[str, str]
) -> dict[str, Any]:
    """What the `mumian-agent` of a site reads.

    Args:
        routes: where its probes of a zone or a peer go in: the near end of a delayed path.
    """
    return {
        "site": {
            "id": place.id,
            "operator_id": f"{place.tier}-operator",
            "tier": place.tier,
            "jurisdiction": place.jurisdiction,
            "pue": {"average": place.pue},
            "prices": {
                "cpu_core_hour_cny": place.core_hour_cny,
                "memory_gib_hour_cny": 0.01,
                "energy_kwh_cny": place.energy_kwh_cny,
            },
            "carbon_g_per_kwh": place.carbon_g_per_kwh,
        },
        "coordinator": coordinator,
        "state_dir": str(state_dir),
        "node": {
            "cpu_limit": CORES_PER_SITE,
            "memory_limit_mib": 4096,
            "core_active_power_w": CORE_ACTIVE_POWER_W,
        },
        "reflector": {"listen": reflector},
        "routes": dict(routes),
        "probe": {"interval_ms": PROBE_INTERVAL_MS, "window": PROBE_WINDOW},
        "ray": {"num_cpus": CORES_PER_SITE, "warm_workers": 1},
    }
