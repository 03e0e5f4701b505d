"""Links as they are at one moment: round trips, what load adds to them, and what can be reserved.

Traffic waits at a link as in an M/M/1 queue: `queue_us` x load / (1 - load) on top of the round trip's 99th
percentile (Kleinrock, "Queueing Systems", 1975, volume 1, chapter 3.2: what waits grows so with the load). So
`rtt.queue_us` is what a half full link adds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mumian.api.v1 import fleet_pb2

from mumian_orchestrator.bench.sim.scenario import Event, Scenario, Site, Zone

_EARTH_RADIUS_KM = 6371.0
_CUT_RTT_US = 10_000_000  # the protocol has no message that takes a link away; nothing is promised over 10 s
# Loads are seen in steps, as probes would see them; what is above the last is dropped by the network.
_STEPS, _FULLEST = 20, 0.95

Pair = tuple[str, str]  # zone or site, and the site at the other end


class LinkState(NamedTuple):
    """Of one link; `bandwidth_kbps` is what tasks may reserve of it together, 0: no limit."""

    rtt_p99_us: int
    bandwidth_kbps: int = 0


Links = Mapping[Pair, LinkState]


def links_at(
    scenario: Scenario, now_s: int, active: Sequence[Event], mbps: Mapping[Pair, float]
) -> dict[Pair, LinkState]:
    """All links. Those between sites too where a job has limits between its groups.

    Args:
        active: the events that go on.
        mbps: the traffic of the tasks that run.
    """
    cut = {(event.zone, event.site) for event in active if event.kind == "link_cut"}
    found = {}
    for site in scenario.sites:
        others = site.link_others[now_s // 3600 % 24]
        others += sum(e.extra_share for e in active if e.kind == "congestion" and e.site == site.id)
        for zone in scenario.zones:
            pair = (zone.id, site.id)
            rtt_us = _CUT_RTT_US if pair in cut else rtt_p99_us(scenario, zone, site)
            if not site.link_mbps:
                found[pair] = LinkState(rtt_us)
                continue
            seen_us = _queue_us(scenario, others + mbps.get(pair, 0.0) / site.link_mbps)
            free = max(0.0, scenario.reservable_share - others)
            found[pair] = LinkState(rtt_us + seen_us, max(1, round(1000 * site.link_mbps * free)))
    if any(group.near for job in scenario.jobs for group in job.groups):
        found |= {
            (a.id, b.id): LinkState(rtt_p99_us(scenario, a, b))
            for a in scenario.sites
            for b in scenario.sites
            if a.id != b.id
        }
    return found


def _queue_us(scenario: Scenario, load: float) -> int:
    seen = min(_FULLEST, math.floor(load * _STEPS + 1e-9) / _STEPS)
    return round(scenario.rtt_queue_us * seen / (1 - seen))


def link_messages(links: Links, factor: float) -> list[fleet_pb2.Link]:
    """The same as reports."""
    return [
        fleet_pb2.Link(
            from_id=begin,
            to_site_id=site,
            rtt_p50_us=round(state.rtt_p99_us / factor),
            rtt_p99_us=state.rtt_p99_us,
            bandwidth_kbps=state.bandwidth_kbps,
            source=fleet_pb2.FIGURE_SOURCE_MODELLED,
            sample_count=1,
        )
        for (begin, site), state in links.items()
    ]


def rtt_p99_us(scenario: Scenario, begin: Zone | Site, end: Site) -> int:
    """What the scenario says of the link, or what follows from the distance; without load."""
    if (begin.id, end.id) in scenario.links_rtt_p99_us:
        return scenario.links_rtt_p99_us[begin.id, end.id]
    p50_us = scenario.rtt_fixed_us + scenario.rtt_us_per_km * distance_km(begin, end)
    return round(p50_us * scenario.rtt_p99_factor)


def distance_km(begin: Zone | Site, end: Site) -> float:
    """Along the great circle, by the haversine formula."""
    lat_a, lat_b = math.radians(begin.latitude), math.radians(end.latitude)
    half_lat = (lat_b - lat_a) / 2
    half_lon = math.radians(end.longitude - begin.longitude) / 2
    a = math.sin(half_lat) ** 2 + math.cos(lat_a) * math.cos(lat_b) * math.sin(half_lon) ** 2
    return 2 * _EARTH_RADIUS_KM * math.asin(math.sqrt(a))
