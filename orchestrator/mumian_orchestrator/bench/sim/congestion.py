"""How the load of a site's uplink makes its round trips longer.

Traffic waits at the uplink as in an M/M/1 queue: `queue_us` x load / (1 - load) on top of the round trip's
99th percentile (Kleinrock, "Queueing Systems", 1975, volume 1, chapter 3.2: what waits grows so with the
load). So `rtt.queue_us` is what a half full uplink adds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from mumian_orchestrator.bench.sim.account import SiteAccount
from mumian_orchestrator.bench.sim.scenario import Event, Scenario

# Loads are seen in steps, as probes would see them; what is above the last is dropped by the network.
_STEPS, _FULLEST = 20, 0.95


def queues_us(
    scenario: Scenario, sites: Mapping[str, SiteAccount], now_s: int, active: Sequence[Event]
) -> dict[str, int]:
    """What waiting at the uplink adds to the round trips of each site that has a limited one."""
    found = {}
    for site in scenario.sites:
        if site.uplink_mbps:
            others = site.uplink_others[now_s // 3600 % 24]
            others += sum(e.extra_share for e in active if e.kind == "congestion" and e.site == site.id)
            load = others + sites[site.id].mbps / site.uplink_mbps
            seen = min(_FULLEST, math.floor(load * _STEPS + 1e-9) / _STEPS)
            found[site.id] = round(scenario.rtt_queue_us * seen / (1 - seen))
    return found
