"""A placer as a careful user would write it with NumPy: every step is vectorised over the nodes.

It obeys the same hard constraints as the core (gangs apart, which it takes for single tasks) and
looks for the same: the cheapest node, and of equally cheap ones the fullest.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from mumian.api.v1 import fleet_pb2, job_pb2
from mumian_core.v1 import engine_pb2
from numpy.typing import NDArray

WHOLE_DEVICE_MILLI = 1000


@dataclass
class Outcome:
    """What was done before the time was over."""

    asked: int
    placed: int
    seconds: float


@dataclass
class Candidates:
    """Nodes that may take a task by everything but their load, and what it costs there in CNY per hour."""

    nodes: NDArray[np.intp]
    cost: NDArray[np.float64]


class NumpyPlacer:
    """Free capacity of n nodes as arrays, updated in place by each task."""

    def __init__(self, fleet: engine_pb2.Delta, policy: engine_pb2.Policy) -> None:
        self._sites = {site.id: site for site in fleet.sites}
        self._site_names = list(self._sites)
        site_index = {name: i for i, name in enumerate(self._site_names)}
        self._rtt_us = {(link.from_id, link.to_site_id): link.rtt_p99_us for link in fleet.links}
        self._policy = policy
        nodes = fleet.nodes
        self._site = np.array([site_index[n.site_id] for n in nodes])
        self._arch = np.array([n.arch for n in nodes])
        self._ready = np.array([n.health == fleet_pb2.HEALTH_READY for n in nodes])
        self._labels = [dict(n.labels) for n in nodes]
        self._model = np.array([n.accelerators[0].model if n.accelerators else "" for n in nodes])
        self._device_power_w = np.array(
            [n.accelerators[0].active_power_mw / 1000 if n.accelerators else 0.0 for n in nodes]
        )
        self._core_power_w = np.array([n.core_active_power_mw / 1000 for n in nodes])
        self._cpu_free = np.array([n.cpu_milli for n in nodes])
        self._memory_free = np.array([n.memory_mib for n in nodes])
        counts = np.array([n.accelerators[0].count if n.accelerators else 0 for n in nodes])
        slots = np.arange(max(1, counts.max()))
        self._device_free = np.where(slots[None, :] < counts[:, None], WHOLE_DEVICE_MILLI, 0)
        self._known: dict[bytes, Candidates] = {}

    def run(self, request: engine_pb2.PlaceRequest, limit_s: float) -> Outcome:
        """Place the jobs by priority until all are asked or the time is over."""
        asked = placed = 0
        start = time.perf_counter()
        for job in sorted(request.jobs, key=lambda j: -j.spec.priority):
            for group in job.spec.task_groups:
                candidates = self._candidates(job.spec, group)
                for _ in range(group.count):
                    if time.perf_counter() - start > limit_s:
                        return Outcome(asked, placed, time.perf_counter() - start)
                    asked += 1
                    placed += self._place(group, candidates)
        return Outcome(asked, placed, time.perf_counter() - start)

    def _place(self, group: job_pb2.TaskGroup, candidates: Candidates) -> bool:
        resources = group.resources
        nodes, milli = candidates.nodes, resources.accelerators.milli
        cpu_free = self._cpu_free[nodes]
        fits = (cpu_free >= resources.cpu_milli) & (self._memory_free[nodes] >= resources.memory_mib)
        if milli:
            free = self._device_free[nodes] >= min(milli, WHOLE_DEVICE_MILLI)
            fits &= free.sum(axis=1) >= -(-milli // WHOLE_DEVICE_MILLI)
        # What is left over only decides between nodes of equal cost.
        score = np.where(fits, candidates.cost + cpu_free * 1e-12, np.inf)
        if not len(score) or not np.isfinite(score[best := int(score.argmin())]):
            return False
        node = nodes[best]
        self._cpu_free[node] -= resources.cpu_milli
        self._memory_free[node] -= resources.memory_mib
        if milli:
            each = min(milli, WHOLE_DEVICE_MILLI)
            roomy = np.flatnonzero(self._device_free[node] >= each)
            fullest = roomy[np.argsort(self._device_free[node][roomy], kind="stable")]
            self._device_free[node, fullest[: -(-milli // WHOLE_DEVICE_MILLI)]] -= each
        return True

    def _candidates(self, spec: job_pb2.JobSpec, group: job_pb2.TaskGroup) -> Candidates:
        asked = job_pb2.JobSpec()
        asked.CopyFrom(spec)
        for one in asked.task_groups:
            one.count = 0
        key = asked.SerializeToString(deterministic=True) + group.name.encode()
        if key not in self._known:
            self._known[key] = self._asked_anew(spec, group)
        return self._known[key]

    def _asked_anew(self, spec: job_pb2.JobSpec, group: job_pb2.TaskGroup) -> Candidates:
        request = group.resources.accelerators
        admitted = (
            self._ready & np.array([self._site_admits(name, spec) for name in self._site_names])[self._site]
        )
        if group.archs:
            admitted &= np.isin(self._arch, list(group.archs))
        if group.labels:
            wanted = group.labels.items()
            admitted &= np.array([all(own.get(k) == v for k, v in wanted) for own in self._labels])
        if request.milli:
            admitted &= np.isin(self._model, list(request.models)) if request.models else self._model != ""
        if group.HasField("latency_slo"):
            slo = group.latency_slo
            rtt_us = np.array([self._worst_rtt_us(list(slo.zone_ids), name) for name in self._site_names])
            total_us = rtt_us[self._site] + self._compute_us(group) + slo.client_us
            admitted &= total_us <= slo.budget_us
        return Candidates(np.flatnonzero(admitted), self._cost(group)[admitted])

    def _site_admits(self, name: str, spec: job_pb2.JobSpec) -> bool:
        site = self._sites[name]
        here = site.jurisdiction
        return (
            site.health == fleet_pb2.HEALTH_READY
            and site.operator_id not in spec.operators_denied
            and (not spec.operators_allowed or site.operator_id in spec.operators_allowed)
            and (
                not spec.jurisdictions
                or any(here == j or here.startswith(j + "-") for j in spec.jurisdictions)
            )
            and (not spec.pue_max_permille or 0 < site.pue.average_permille <= spec.pue_max_permille)
        )

    def _worst_rtt_us(self, zone_ids: list[str], site_id: str) -> float:
        return max(self._rtt_us.get((zone, site_id), np.inf) for zone in zone_ids)

    def _compute_us(self, group: job_pb2.TaskGroup) -> NDArray[np.float64]:
        compute = group.compute_time
        compute_us = np.full(len(self._site), float(compute.default_us))
        for arch, value in compute.by_arch_us.items():
            compute_us[self._arch == arch] = value
        if group.resources.accelerators.milli:
            for model, value in compute.by_accelerator_model_us.items():
                compute_us[self._model == model] = value
        return compute_us

    def _cost(self, group: job_pb2.TaskGroup) -> NDArray[np.float64]:
        resources, sites = group.resources, [self._sites[name] for name in self._site_names]
        cores, gib = resources.cpu_milli / 1000, resources.memory_mib / 1024
        devices = resources.accelerators.milli / 1000
        rent = np.array(
            [cores * s.prices.cpu_core_hour_microcny + gib * s.prices.memory_gib_hour_microcny for s in sites]
        )[self._site]
        if devices:
            for i, site in enumerate(sites):
                for model, price in site.prices.accelerator_hour_microcny.items():
                    rent[(self._site == i) & (self._model == model)] += devices * price
        it_kw = (cores * self._core_power_w + devices * self._device_power_w) / 1000
        per_kwh = [
            s.prices.energy_kwh_microcny + s.carbon_g_per_kwh * self._policy.carbon_kg_microcny / 1000
            for s in sites
        ]
        at_meter = np.array(
            [p * max(1000, s.pue.marginal_permille) / 1000 for p, s in zip(per_kwh, sites, strict=True)]
        )
        cost: NDArray[np.float64] = (rent + it_kw * at_meter[self._site]) / 1e6
        return cost
