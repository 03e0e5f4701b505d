"""A recording as a scenario, so that an operator can replay last week under another policy."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from mumian.api.v1 import job_pb2
from mumian.api.v1.fleet_pb2 import Link, Node, Site, Tier
from mumian.api.v1.job_pb2 import JOB_KIND_GANG, JOB_KIND_SERVICE, Allocation, Job

from mumian_orchestrator.bench.sim.fields import Fields, ScenarioError
from mumian_orchestrator.bench.sim.offers import Offers
from mumian_orchestrator.bench.sim.recording import Recording
from mumian_orchestrator.bench.sim.task_groups import (
    TOPOLOGIES,
    ApartFrom,
    Near,
    Spread,
    TaskGroup,
    written,
)

_HOUR_S = 3600
_MICROCNY = 1_000_000
_Run = tuple[float, float | None]  # when it was wanted, in Unix seconds, and how long it ran; None: never
_UNMEASURED_MS = 10_000.0  # nothing is promised over 10 s
_TIERS: Mapping[int, str] = {Tier.TIER_CITY: "city", Tier.TIER_HUB: "hub"}


class _Machine(NamedTuple):
    """What makes two nodes alike, by the names of a scenario's fields."""

    arch: str
    labels: tuple[tuple[str, str], ...]
    cores: int
    memory_gib: int
    core_active_power_mw: int
    accelerator_kind: str
    accelerator_model: str
    accelerator_count: int
    accelerator_active_power_mw: int


class _Kind(NamedTuple):
    """What makes two jobs alike."""

    tenant: str
    priority: int
    is_gang: bool
    is_service: bool
    zones: tuple[str, ...]
    jurisdictions: tuple[str, ...]
    operators_allowed: tuple[str, ...]
    operators_denied: tuple[str, ...]
    pue_max_permille: int
    groups: tuple[TaskGroup, ...]


@dataclass(frozen=True, slots=True)
class Imported:
    """A scenario's mapping, and what it does not have of the recording, one sentence each."""

    raw: Mapping[str, object]
    left_out: tuple[str, ...]


def scenario_of(recording: Recording, name: str, tick_s: int, from_unix_s: float | None = None) -> Imported:
    """The scenario that replays a recording.

    Args:
        from_unix_s: where the replay starts; default: with the first job. What ran then arrives then.

    Raises:
        ScenarioError: nothing is recorded that could be replayed.
    """
    if not recording.nodes:
        raise ScenarioError(f"{recording.origin} has no nodes; import while its agents are connected")
    if not recording.jobs:
        raise ScenarioError(f"{recording.origin} has no jobs; name the tenants whose jobs are to be replayed")
    created = [job.create_time.ToNanoseconds() / 1e9 for job in recording.jobs]
    start_s = math.floor(min(created) if from_unix_s is None else from_unix_s)
    zones = [zone.id for zone in recording.zones] or ["everywhere"]
    left_out: Counter[str] = Counter()
    jobs = _jobs(recording, start_s, zones, left_out)
    if not jobs:
        raise ScenarioError(f"{recording.origin}: no task ran after the start; choose an earlier one")
    hours = max(tick_s / _HOUR_S, (recording.end_unix_s - start_s) / _HOUR_S)
    sites = [_site(site, recording, start_s, left_out) for site in recording.sites]
    raw = {
        "name": name,
        "duration_h": round(math.ceil(hours * _HOUR_S / tick_s) * tick_s / _HOUR_S, 6),
        "tick_s": tick_s,
        "rtt": {"fixed_us": 0, "us_per_km": 0, "p99_factor": 1},
        "zones": [{"id": zone, "latitude": 0, "longitude": 0} for zone in zones],
        "sites": [site for site in sites if site["nodes"]],
        "links": _links(recording, zones),
        "jobs": jobs,
        "sources": [
            {
                "fields": ["*.latitude", "*.longitude", "rtt.*", "sites.*.pue_permille_per_c"],
                "kind": "assumed",
                "because": "a live system records round trips, not places, and PUE without the weather.",
            },
            {"fields": ["*"], "kind": "recorded", "text": recording.origin},
        ],
    }
    return Imported(raw, tuple(f"{count} {what}" for what, count in sorted(left_out.items())))


def _site(site: Site, recording: Recording, start_s: int, left_out: Counter[str]) -> dict[str, object]:
    groups: Counter[_Machine] = Counter()
    for node in recording.nodes:
        if node.site_id == site.id:
            groups[_machine(node, left_out)] += 1
    nodes = []
    for machine, count in sorted(groups.items()):
        raw: dict[str, object] = {"count": count, **machine._asdict(), "labels": dict(machine.labels)}
        if machine.accelerator_count:
            rent = site.prices.accelerator_hour_microcny.get(machine.accelerator_model, 0)
            raw["accelerator_hour_microcny"] = rent
        nodes.append({name: value for name, value in raw.items() if value or name == "core_active_power_mw"})
    energy, carbon = _by_hour(site, start_s)
    return {
        "id": site.id,
        "operator": site.operator_id or site.id,
        "tier": _TIERS.get(site.tier, "edge"),
        "jurisdiction": site.jurisdiction,
        "latitude": 0,
        "longitude": 0,
        "pue_permille": max(1000, site.pue.marginal_permille or site.pue.average_permille),
        "pue_permille_per_c": 0,
        "energy_kwh_cny": energy,
        "carbon_g_per_kwh": carbon,
        "cpu_core_hour_microcny": site.prices.cpu_core_hour_microcny,
        "memory_gib_hour_microcny": site.prices.memory_gib_hour_microcny,
        "nodes": nodes,
    }


def _machine(node: Node, left_out: Counter[str]) -> _Machine:
    first = node.accelerators[0] if node.accelerators else None
    if len(node.accelerators) > 1:
        left_out["nodes have accelerators of several kinds; only the first kind is there"] += 1
    return _Machine(
        arch=node.arch or "x86_64",
        labels=tuple(sorted(node.labels.items())),
        cores=max(1, node.cpu_milli // 1000),
        memory_gib=max(1, node.memory_mib // 1024),
        core_active_power_mw=node.core_active_power_mw,
        accelerator_kind=first.kind if first else "",
        accelerator_model=first.model if first else "",
        accelerator_count=first.count if first else 0,
        accelerator_active_power_mw=first.active_power_mw if first else 0,
    )


def _by_hour(site: Site, start_s: int) -> tuple[list[float], list[float]]:
    """Energy in CNY and carbon in grams for each of the 24 hours from the start."""
    hours = site.forecast.hours
    energy, carbon = [], []
    for hour in range(24):
        at = (start_s // _HOUR_S + hour) - site.forecast.first_hour_unix_s // _HOUR_S
        known = hours[at] if site.HasField("forecast") and 0 <= at < len(hours) else None
        energy.append((known.energy_kwh_microcny if known else site.prices.energy_kwh_microcny) / _MICROCNY)
        carbon.append(float(known.carbon_g_per_kwh if known else site.carbon_g_per_kwh))
    return energy, carbon


def _links(recording: Recording, zones: list[str]) -> list[dict[str, object]]:
    measured = {(link.from_id, link.to_site_id): link for link in recording.links}
    return [
        {"zone": zone, "site": site.id, "rtt_p99_ms": _rtt_ms(measured.get((zone, site.id)))}
        for zone in zones
        for site in recording.sites
        if any(node.site_id == site.id for node in recording.nodes)
    ]


def _rtt_ms(link: Link | None) -> float:
    return max(0.001, link.rtt_p99_us / 1000) if link is not None and link.rtt_p99_us else _UNMEASURED_MS


def _jobs(
    recording: Recording, start_s: int, zones: list[str], left_out: Counter[str]
) -> list[dict[str, object]]:
    runs: dict[_Kind, list[_Run]] = defaultdict(list)
    starts: dict[_Kind, list[float]] = defaultdict(list)
    offers = _offers(recording)
    for job in recording.jobs:
        if job.spec.rent_max_microcny_per_hour:
            left_out["jobs have a rent ceiling; it is left out"] += 1
        for kind, groups in _kinds(job, zones, left_out):
            try:
                offers.check(Fields({}, ""), kind)
            except ScenarioError as error:
                left_out[f"jobs are left out: {error}"] += 1
                continue
            names = {group.name for group in groups}
            starts[kind] += [
                max(0.0, (a.start_time.ToNanoseconds() - a.create_time.ToNanoseconds()) / 1e9)
                for a in job.allocations
                if a.task_group in names and a.HasField("start_time") and a.HasField("create_time")
            ]
            found = [run for group in groups for run in _tasks(job, group, recording.end_unix_s)]
            # Tasks that are bound to one another are one entry: they run as long as the longest of them.
            for at_s, run_s in _longest(found) if _is_bound(job) else found:
                if at_s + (run_s or math.inf) <= start_s:
                    continue  # over before the start
                begun = max(0.0, start_s - at_s)
                runs[kind].append((max(0.0, at_s - start_s), None if run_s is None else run_s - begun))
    classes = []
    for number, (kind, entries) in enumerate(sorted(runs.items(), key=repr)):
        known = [run_s for _, run_s in entries if run_s is not None]
        if not known:
            left_out["tasks never started, nor did any like them; nobody knows how long they run"] += len(
                entries
            )
            continue
        typical_s = fmean(known)
        job_class: dict[str, object] = {
            "name": f"{kind.tenant}-{number}",
            "tenant": kind.tenant,
            "priority": kind.priority,
            "kind": "gang" if kind.is_gang else "batch",
            "zones": list(kind.zones or zones),
            "movable": int(kind.is_service),
            "start_s": round(fmean(starts[kind]), 3) if starts[kind] else 0,
            "arrivals": {
                "at_s": [round(at_s, 3) for at_s, _ in entries],
                "run_s": [round(typical_s if run_s is None else run_s, 3) for _, run_s in entries],
            },
            "jurisdictions": list(kind.jurisdictions),
            "operators_allowed": list(kind.operators_allowed),
            "operators_denied": list(kind.operators_denied),
            "pue_max_permille": kind.pue_max_permille,
            "groups": [written(group) for group in kind.groups],
        }
        classes.append(job_class)
    return classes


def _offers(recording: Recording) -> Offers:
    """What the recorded fleet has."""
    return Offers(
        operators={site.operator_id or site.id for site in recording.sites},
        jurisdictions={site.jurisdiction for site in recording.sites if site.jurisdiction},
        labels={name for node in recording.nodes for name in node.labels},
        models={device.model for node in recording.nodes for device in node.accelerators[:1]},
    )


def _is_bound(job: Job) -> bool:
    """Whether where or when a task starts depends on the job's other tasks."""
    return job.spec.kind == JOB_KIND_GANG or any(
        group.spreads or group.apart_from or group.group_latencies for group in job.spec.task_groups
    )


def _longest(found: list[_Run]) -> list[_Run]:
    known = [run_s for _, run_s in found if run_s is not None]
    return [(found[0][0], max(known) if known else None)] if found else []


def _kinds(
    job: Job, zones: list[str], left_out: Counter[str]
) -> Iterator[tuple[_Kind, Sequence[job_pb2.TaskGroup]]]:
    """What the job is like: as a whole where its tasks are bound to one another, else one for each group,
    whose tasks are jobs of their own in the twin.
    """
    groups = list(job.spec.task_groups)
    if not _is_bound(job):
        for group in groups:
            made = dataclasses.replace(_group(group, zones, left_out), name="main", count=1)
            yield _kind(job, [made], _users(group, zones)), [group]
        return
    users = next((users for group in groups if (users := _users(group, zones))), ())
    if any(_users(group, zones) not in ((), users) for group in groups):
        told = "jobs have groups with users in different zones; all are taken to be in those of the first"
        left_out[told] += 1
    yield _kind(job, [_group(group, zones, left_out) for group in groups], users), groups


def _kind(job: Job, groups: Sequence[TaskGroup], users: tuple[str, ...]) -> _Kind:
    return _Kind(
        tenant=job.tenant_id or "default",
        priority=job.spec.priority or 50,
        is_gang=job.spec.kind == JOB_KIND_GANG,
        is_service=job.spec.kind == JOB_KIND_SERVICE,
        zones=users,
        jurisdictions=tuple(job.spec.jurisdictions),
        operators_allowed=tuple(job.spec.operators_allowed),
        operators_denied=tuple(job.spec.operators_denied),
        pue_max_permille=job.spec.pue_max_permille,
        groups=tuple(groups),
    )


def _users(group: job_pb2.TaskGroup, zones: list[str]) -> tuple[str, ...]:
    """The zones that it promises latency to, or sends traffic to."""
    named = [*group.latency_slo.zone_ids, *(entry.zone_id for entry in group.zone_traffic)]
    return tuple(zone for zone in dict.fromkeys(named) if zone in zones)


def _group(group: job_pb2.TaskGroup, zones: list[str], left_out: Counter[str]) -> TaskGroup:
    slo, want, compute = group.latency_slo, group.resources, group.compute_time
    users = _users(group, zones)
    if len(users) > 1:
        left_out["groups have users in several zones at once; each task serves one of them"] += 1
    if group.together:
        left_out["groups are together; it is left out"] += 1
    domains = [*(s.topology for s in group.spreads), *(a.topology for a in group.apart_from)]
    if any(topology not in TOPOLOGIES.values() for topology in domains):
        left_out["groups have limits of a switch or a rack; they are left out"] += 1
    has_promise = bool(slo.budget_us and users)
    soft = slo.soft_microcny_per_ms_hour if has_promise else 0
    return TaskGroup(
        name=group.name,
        count=max(1, group.count),
        cpu_milli=max(1, want.cpu_milli),
        memory_mib=max(1, want.memory_mib),
        accelerator_milli=want.accelerators.milli,
        accelerator_models=tuple(want.accelerators.models),
        archs=tuple(group.archs),
        labels=tuple(sorted(group.labels.items())),
        slo_budget_us=slo.budget_us if has_promise else 0,
        soft_microcny_per_ms_hour=soft,
        patience_s=slo.patience_ms / 1000 if has_promise and not soft else 0.0,
        compute_us=compute.default_us,
        compute_us_by_model=tuple(sorted(compute.by_accelerator_model_us.items())),
        compute_us_by_arch=tuple(sorted(compute.by_arch_us.items())),
        client_us=slo.client_us if has_promise else 0,
        mbps=max((entry.bandwidth_kbps for entry in group.zone_traffic), default=0) / 1000,
        spreads=tuple(
            Spread(s.topology, s.max_tasks) for s in group.spreads if s.topology in TOPOLOGIES.values()
        ),
        apart_from=tuple(
            ApartFrom(a.topology, a.task_group) for a in group.apart_from if a.topology in TOPOLOGIES.values()
        ),
        near=tuple(Near(near.task_group, near.budget_us) for near in group.group_latencies),
    )


def _tasks(job: Job, group: job_pb2.TaskGroup, end_unix_s: float) -> Iterator[_Run]:
    """When each task of a group was wanted and how long it ran; None: it never started."""
    created_s = job.create_time.ToNanoseconds() / 1e9
    by_task: dict[int, list[Allocation]] = defaultdict(list)
    for allocation in job.allocations:
        if allocation.task_group == group.name:
            by_task[allocation.task_index].append(allocation)
    for index in range(group.count):
        spans = [
            (a.start_time.ToNanoseconds() / 1e9, a.end_time.ToNanoseconds() / 1e9 or end_unix_s)
            for a in by_task[index]
            if a.HasField("start_time")
        ]
        yield created_s, sum(max(0.0, end - begin) for begin, end in spans) if spans else None
