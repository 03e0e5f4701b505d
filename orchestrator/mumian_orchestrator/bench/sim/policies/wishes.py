"""Which nodes a task may run on, be there room or not: for policies that look at nodes themselves."""

from __future__ import annotations

from collections.abc import Iterable

from mumian.api.v1.fleet_pb2 import HEALTH_READY, Site
from mumian.api.v1.job_pb2 import JobSpec, TaskGroup

from mumian_orchestrator.bench.sim.links import Links
from mumian_orchestrator.bench.sim.offers import covers
from mumian_orchestrator.bench.sim.policies.base import Cluster
from mumian_orchestrator.bench.sim.policies.books import NodeKind, Task


def task_of(spec: JobSpec, group: TaskGroup, cluster: Cluster, kinds: Iterable[NodeKind]) -> Task:
    """The task, as the world is now."""
    slo = group.latency_slo
    is_soft = slo.soft_microcny_per_ms_hour > 0
    allowed, soft = set(), []
    for kind in kinds:
        if not (_site_allows(spec, cluster.sites[kind.site_id]) and _node_allows(group, kind)):
            continue
        over_us = max((t - slo.budget_us for t in _times_us(group, kind, cluster.links)), default=0)
        if over_us <= 0 or is_soft:
            allowed.add(kind)
        if over_us > 0 and is_soft:
            soft.append((kind, over_us * slo.soft_microcny_per_ms_hour // 1000))
    return Task.of(group, frozenset(allowed), tuple(sorted(soft, key=lambda entry: repr(entry[0]))))


def _site_allows(spec: JobSpec, site: Site) -> bool:
    return (
        site.health == HEALTH_READY
        and site.operator_id not in spec.operators_denied
        and (not spec.operators_allowed or site.operator_id in spec.operators_allowed)
        and (not spec.jurisdictions or any(covers(wide, site.jurisdiction) for wide in spec.jurisdictions))
        and (not spec.pue_max_permille or 0 < site.pue.average_permille <= spec.pue_max_permille)
    )


def _node_allows(group: TaskGroup, kind: NodeKind) -> bool:
    return (not group.archs or kind.arch in group.archs) and set(group.labels.items()) <= kind.labels


def _times_us(group: TaskGroup, kind: NodeKind, links: Links) -> list[int]:
    """From each zone of its promise: round trip, computing, and the client's own."""
    compute = group.compute_time
    compute_us = compute.by_arch_us.get(kind.arch, compute.default_us)
    if group.resources.accelerators.milli:
        for model in kind.models:  # a node of the twin has devices of one model
            compute_us = compute.by_accelerator_model_us.get(model, compute_us)
    slo = group.latency_slo
    return [links[zone, kind.site_id].rtt_p99_us + compute_us + slo.client_us for zone in slo.zone_ids]
