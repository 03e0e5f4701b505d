"""What a run comes to, as plain figures, and as a table for people."""

from __future__ import annotations

from statistics import fmean

from mumian_orchestrator.bench.sim.account import Account
from mumian_orchestrator.bench.sim.simulation import Simulation

_MWS_PER_KWH = 3_600_000_000


def figures(simulation: Simulation) -> dict[str, object]:
    """Deterministic: nothing here depends on how fast the machine is."""
    account, scenario = simulation.account, simulation.scenario
    waits = sorted(account.waits_s)
    arrived, placed = sum(account.arrived.values()), sum(account.placed.values())
    sites = account.sites.values()
    cores = sum(1000 * g.count * g.cores for site in scenario.sites for g in site.nodes)
    kept = account.kept_task_s / account.promised_task_s if account.promised_task_s else 1.0
    return {
        "arrived": arrived,
        "starts": placed,
        "lost_with_a_site": account.lost,
        "waiting_at_end": simulation.waiting,
        "running_at_end": simulation.running,
        "inside_slo": round(kept, 6),
        "wait_mean_s": round(fmean(waits), 3) if waits else 0.0,
        "wait_p99_s": round(waits[min(len(waits) - 1, int(0.99 * len(waits)))], 3) if waits else 0.0,
        "cpu_utilisation": round(sum(s.cpu_milli_s for s in sites) / (cores * scenario.duration_s), 6),
        "it_kwh": round(sum(s.it_mws for s in sites) / _MWS_PER_KWH, 3),
        "meter_kwh": round(sum(s.facility_mws for s in sites) / _MWS_PER_KWH, 3),
        "carbon_kg": round(sum(s.carbon_g for s in sites) / 1000, 3),
        "energy_cny": round(sum(s.energy_cny for s in sites), 2),
        "rent_cny": round(sum(s.rent_cny for s in sites), 2),
        "cny": round(sum(s.energy_cny + s.rent_cny for s in sites), 2),
        "fairness_jain": round(_jain(account), 6),
        "sites": {
            site_id: {
                "meter_kwh": round(s.facility_mws / _MWS_PER_KWH, 3),
                "pue": round(s.facility_mws / s.it_mws, 4) if s.it_mws else None,
            }
            for site_id, s in account.sites.items()
        },
        "tenants": {
            tenant: {
                "arrived": count,
                "starts": account.placed[tenant],
                "wait_mean_s": round(account.wait_sum_s[tenant] / max(1, account.placed[tenant]), 3),
            }
            for tenant, count in sorted(account.arrived.items())
        },
    }


def _jain(account: Account) -> float:
    """Jain's index over the tenants' shares of placed tasks: 1 when all get the same share."""
    shares = [account.placed[tenant] / count for tenant, count in account.arrived.items()]
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0
