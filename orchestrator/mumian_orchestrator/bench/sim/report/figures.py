"""What a run comes to, as plain figures. Deterministic: nothing here depends on how fast the machine is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean

from mumian_orchestrator.bench.sim.account import MWS_PER_KWH
from mumian_orchestrator.bench.sim.simulation import Simulation

Figures = Mapping[str, object]

# For people: the title of each figure, and what it is.
TITLES: Mapping[str, tuple[str, str]] = {
    "inside_slo": (
        "Inside SLO",
        "of the task-seconds under a hard latency promise, those at a place that keeps it",
    ),
    "inside_soft_slo": (
        "Inside soft SLO",
        "of the task-seconds under a soft latency promise, which money may break, those inside it",
    ),
    "arrived": ("Arrived", "tasks that came"),
    "starts": ("Started", "tasks that found a place; those of a lost site count anew"),
    "waiting_at_end": ("Waiting at the end", "tasks without a place when the run ended"),
    "running_at_end": ("Running at the end", "tasks at their place when the run ended"),
    "lost_with_a_site": ("Lost with a site", "tasks that started anew because their site was lost"),
    "wait_mean_s": ("Mean wait, s", "from arrival to start; half a tick of it is the twin's own"),
    "wait_p99_s": ("99th percentile wait, s", "one start in a hundred waited longer"),
    "cpu_utilisation": ("Cores used", "of all cores, on average over the run"),
    "accelerator_utilisation": ("Accelerators used", "of all devices, on average over the run"),
    "core_fragments": ("Core fragments", "of free cores, what the next task most likely cannot use"),
    "device_fragments": (
        "Device fragments",
        "of free accelerators, what the next task most likely cannot use",
    ),
    "it_kwh": ("IT energy, kWh", "of the tasks, before cooling and losses"),
    "meter_kwh": ("Energy at the meter, kWh", "IT energy x PUE of its site and hour"),
    "pue": ("PUE", "energy at the meter / IT energy, over all sites"),
    "carbon_kg": ("CO2, kg", "energy at the meter x carbon of its grid and hour"),
    "energy_cny": ("Energy, CNY", "energy at the meter x tariff of its hour"),
    "idle_kwh": (
        "Idle energy, kWh",
        "at the meter, of machines that are on, whatever runs; beside the tasks' energy, and on no receipt",
    ),
    "idle_carbon_kg": ("Idle CO2, kg", "of that energy"),
    "idle_cny": ("Idle energy, CNY", "of that energy"),
    "rent_cny": ("Rent, CNY", "what the operators ask for cores, memory and devices"),
    "cny": ("Cost, CNY", "rent and energy"),
    "cny_per_core_hour": (
        "CNY per core-hour",
        "cost / core-hours used: comparable where policies place differently much",
    ),
    "moves": ("Moves", "running tasks that were taken elsewhere"),
    "gap_to_bound": (
        "Gap to the bound",
        "mean over the run: what runs costs so much more than the proven least",
    ),
    "fairness_jain": (
        "Fairness",
        "Jain's index over the tenants' shares of tasks that have or had a place; 1 is even",
    ),
}
SHARES = {
    "inside_slo",
    "inside_soft_slo",
    "cpu_utilisation",
    "accelerator_utilisation",
    "core_fragments",
    "device_fragments",
    "gap_to_bound",
    "placed_share",
}


def figures(simulation: Simulation) -> dict[str, object]:
    """All figures of one run, by the names of `TITLES`, then by site and by tenant."""
    account, scenario = simulation.account, simulation.scenario
    waits = sorted(account.waits_s)
    sites = account.sites.values()
    cores = sum(1000 * g.count * g.cores for site in scenario.sites for g in site.nodes)
    devices = sum(1000 * g.count * g.accelerator_count for site in scenario.sites for g in site.nodes)
    core_s = sum(s.cpu_milli_s for s in sites)
    it_mws, facility_mws = sum(s.it_mws for s in sites), sum(s.facility_mws for s in sites)
    cny = sum(s.energy_cny + s.rent_cny for s in sites)
    kept, kept_soft = account.promises(hard=True).share, account.promises(hard=False).share
    waiting = Counter(scenario.jobs[task.job_class].tenant for task in simulation.waiting_tasks())
    placed = {
        name: round(1 - waiting[name] / tenant.arrived, 6) if tenant.arrived else None
        for name, tenant in account.tenants.items()
    }
    fragments = [r.device_fragments for r in simulation.readings if r.device_fragments is not None]
    return {
        "inside_slo": 1.0 if kept is None else round(kept, 6),
        "inside_soft_slo": None if kept_soft is None else round(kept_soft, 6),
        "arrived": account.arrived,
        "starts": sum(tenant.starts for tenant in account.tenants.values()),
        "waiting_at_end": simulation.waiting,
        "running_at_end": simulation.running,
        "lost_with_a_site": account.lost,
        "wait_mean_s": round(fmean(waits), 3) if waits else 0.0,
        "wait_p99_s": round(waits[min(len(waits) - 1, int(0.99 * len(waits)))], 3) if waits else 0.0,
        "cpu_utilisation": round(core_s / (cores * scenario.duration_s), 6),
        "accelerator_utilisation": round(
            sum(s.accelerator_milli_s for s in sites) / (devices * scenario.duration_s), 6
        )
        if devices
        else None,
        "core_fragments": _mean([r.core_fragments for r in simulation.readings]),
        "device_fragments": _mean(fragments),
        "it_kwh": round(it_mws / MWS_PER_KWH, 6),
        "meter_kwh": round(facility_mws / MWS_PER_KWH, 6),
        "pue": round(facility_mws / it_mws, 4) if it_mws else None,
        "carbon_kg": round(sum(s.carbon_g for s in sites) / 1000, 6),
        "energy_cny": round(sum(s.energy_cny for s in sites), 2),
        "idle_kwh": round(sum(s.idle_facility_mws for s in sites) / MWS_PER_KWH, 6),
        "idle_carbon_kg": round(sum(s.idle_carbon_g for s in sites) / 1000, 6),
        "idle_cny": round(sum(s.idle_cny for s in sites), 2),
        "rent_cny": round(sum(s.rent_cny for s in sites), 2),
        "cny": round(cny, 2),
        "cny_per_core_hour": round(cny / (core_s / 3_600_000), 6) if core_s else None,
        "moves": account.moves,
        "gap_to_bound": _mean([r.gap for r in simulation.readings]),
        "fairness_jain": round(_jain([share for share in placed.values() if share is not None]), 6),
        "sites": {
            site_id: {
                "meter_kwh": round(s.facility_mws / MWS_PER_KWH, 6),
                "pue": round(s.facility_mws / s.it_mws, 4) if s.it_mws else None,
                "cpu_utilisation": round(
                    s.cpu_milli_s
                    / (sum(1000 * g.count * g.cores for g in s.site.nodes) * scenario.duration_s),
                    6,
                ),
                "carbon_kg": round(s.carbon_g / 1000, 6),
                "cny": round(s.energy_cny + s.rent_cny, 2),
            }
            for site_id, s in account.sites.items()
        },
        "tenants": {
            name: {
                "arrived": tenant.arrived,
                "starts": tenant.starts,
                "waiting_at_end": waiting[name],
                "placed_share": placed[name],
                "wait_mean_s": round(tenant.wait_sum_s / max(1, tenant.starts), 3),
                "inside_slo": None if tenant.hard.share is None else round(tenant.hard.share, 6),
            }
            for name, tenant in sorted(account.tenants.items())
        },
    }


def _mean(values: Sequence[float]) -> float | None:
    return round(fmean(values), 6) if values else None


def _jain(shares: Sequence[float]) -> float:
    """Jain's index (Jain, Chiu and Hawe 1984): 1 when all get the same share."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0
