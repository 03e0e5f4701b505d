"""The scenario's places as the messages that agents and tenants would send."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from mumian.api.v1 import fleet_pb2, job_pb2
from mumian.api.v1.resources_pb2 import Accelerator, AcceleratorRequest, Resources
from mumian_core.v1 import engine_pb2

from mumian_orchestrator.bench.sim.arrivals import Arrival
from mumian_orchestrator.bench.sim.jobs import JobClass
from mumian_orchestrator.bench.sim.scenario import NodeClass, Scenario, Site
from mumian_orchestrator.bench.sim.task_groups import TaskGroup

# The virtual clock's zero: 2026-01-01 00:00 UTC, as in `adapters.memory.virtual_time`.
EPOCH_UNIX_S = 1_767_225_600
_MICROCNY = 1_000_000


def site_message(
    site: Site,
    hours: int,
    pue_permille: int,
    hour: int = 0,
    health: fleet_pb2.Health.ValueType = fleet_pb2.HEALTH_READY,
) -> fleet_pb2.Site:
    """What an agent declares at an hour of the run, with prices and carbon of every hour of it."""
    message = fleet_pb2.Site(
        id=site.id,
        operator_id=site.operator,
        tier=fleet_pb2.Tier.Name(site.tier),  # type: ignore[arg-type]
        jurisdiction=site.jurisdiction,
        carbon_g_per_kwh=round(site.carbon_g_per_kwh[hour % 24]),
        health=health,
    )
    message.pue.average_permille = message.pue.marginal_permille = pue_permille
    message.pue.source = fleet_pb2.FIGURE_SOURCE_MODELLED
    message.prices.cpu_core_hour_microcny = site.cpu_core_hour_microcny
    message.prices.memory_gib_hour_microcny = site.memory_gib_hour_microcny
    message.prices.energy_kwh_microcny = round(site.energy_kwh_cny[hour % 24] * _MICROCNY)
    for group in site.nodes:
        if group.accelerator_count:
            message.prices.accelerator_hour_microcny[group.accelerator_model] = (
                group.accelerator_hour_microcny
            )
    message.forecast.first_hour_unix_s = EPOCH_UNIX_S
    for hour in range(hours):
        message.forecast.hours.add(
            energy_kwh_microcny=round(site.energy_kwh_cny[hour % 24] * _MICROCNY),
            carbon_g_per_kwh=round(site.carbon_g_per_kwh[hour % 24]),
        )
    return message


def node_messages(site: Site) -> list[fleet_pb2.Node]:
    """All machines of a site."""
    return [
        _node(site, group, f"{site.id}/n{kind}-{number:05d}")
        for kind, group in enumerate(site.nodes)
        for number in range(group.count)
    ]


def more_node_messages(scenario: Scenario, site_id: str, node_class: int, count: int) -> list[fleet_pb2.Node]:
    """Machines like those of a class, that are not there yet."""
    site = next(site for site in scenario.sites if site.id == site_id)
    group = site.nodes[node_class]
    return [_node(site, group, f"{site.id}/n{node_class}-new-{number:05d}") for number in range(count)]


def _node(site: Site, group: NodeClass, node_id: str) -> fleet_pb2.Node:
    node = fleet_pb2.Node(
        id=node_id,
        site_id=site.id,
        arch=group.arch,
        labels=dict(group.labels),
        health=fleet_pb2.HEALTH_READY,
        cpu_milli=1000 * group.cores,
        memory_mib=1024 * group.memory_gib,
        core_active_power_mw=group.core_active_power_mw,
    )
    if group.accelerator_count:
        node.accelerators.append(
            Accelerator(
                kind=group.accelerator_kind,
                model=group.accelerator_model,
                count=group.accelerator_count,
                active_power_mw=group.accelerator_active_power_mw,
            )
        )
    return node


@dataclass(frozen=True, slots=True)
class RunningTask:
    """A task at its place. `id` is that of its allocation too."""

    id: str
    job_id: str
    spec: job_pb2.JobSpec
    task_group: str
    task_index: int


class Specs:
    """The job spec of each class and zone, made once."""

    def __init__(self, scenario: Scenario) -> None:
        self._jobs = scenario.jobs
        self._made: dict[tuple[int, str], job_pb2.JobSpec] = {}

    def of(self, task: Arrival) -> job_pb2.JobSpec:
        """What the tenant declares, with every default filled in. Not to be changed."""
        key = (task.job_class, task.zone)
        if key not in self._made:
            self._made[key] = job_spec(self._jobs[task.job_class], task.zone)
        return self._made[key]

    def group_of(self, task: Arrival) -> job_pb2.TaskGroup:
        """What its task group asks for."""
        return self.of(task).task_groups[task.group]

    def running(self, task: Arrival) -> RunningTask:
        """It as a task that may move."""
        spec = self.of(task)
        return RunningTask(task.id, task.job_id, spec, spec.task_groups[task.group].name, task.task_index)

    def pending(self, tasks: Iterable[Arrival]) -> list[engine_pb2.PendingJob]:
        """Tasks that want a place, as jobs; those of a job must come one after another."""
        return [
            self._pending_job(job_id, list(of_job))
            for job_id, of_job in groupby(tasks, lambda task: task.job_id)
        ]

    def _pending_job(self, job_id: str, tasks: list[Arrival]) -> engine_pb2.PendingJob:
        spec = self.of(tasks[0])
        pending = engine_pb2.PendingJob(job_id=job_id, spec=spec)
        if len(tasks) < sum(group.count for group in spec.task_groups):
            for number, of_group in groupby(tasks, lambda task: task.group):
                pending.pending.add(
                    task_group=spec.task_groups[number].name,
                    task_indexes=[task.task_index for task in of_group],
                )
        return pending

    def typical(self) -> list[tuple[job_pb2.TaskGroup, float]]:
        """What the groups of the classes ask for, and each one's share of all tasks that arrive."""
        counted = [
            (job_spec(job, job.zones[0]).task_groups[number], job.arrivals_a_day * group.count)
            for job in self._jobs
            for number, group in enumerate(job.groups)
        ]
        total = sum(count for _, count in counted) or 1
        return [(group, count / total) for group, count in counted]


def group_number(spec: job_pb2.JobSpec, name: str) -> int:
    """Which of its job's groups has that name; of none: the first."""
    return next((n for n, group in enumerate(spec.task_groups) if group.name == name), 0)


def job_spec(job: JobClass, zone: str) -> job_pb2.JobSpec:
    """A job of a class, for users in a zone."""
    kind = job_pb2.JOB_KIND_GANG if job.is_gang else job_pb2.JOB_KIND_BATCH
    if job.is_movable:
        kind = job_pb2.JOB_KIND_SERVICE  # only those does the coordinator move
    groups = [_group_spec(group, zone) for group in job.groups]
    return job_pb2.JobSpec(
        name=job.name,
        kind=kind,
        priority=job.priority,
        jurisdictions=job.jurisdictions,
        operators_allowed=job.operators_allowed,
        operators_denied=job.operators_denied,
        pue_max_permille=job.pue_max_permille,
        task_groups=groups,
    )


def _group_spec(group: TaskGroup, zone: str) -> job_pb2.TaskGroup:
    resources = Resources(cpu_milli=group.cpu_milli, memory_mib=group.memory_mib)
    if group.accelerator_milli:
        resources.accelerators.CopyFrom(
            AcceleratorRequest(milli=group.accelerator_milli, models=group.accelerator_models)
        )
    spec = job_pb2.TaskGroup(
        name=group.name,
        count=group.count,
        resources=resources,
        archs=group.archs,
        labels=dict(group.labels),
    )
    spec.command.argv.append("true")
    if group.slo_budget_us:
        slo = spec.latency_slo
        slo.zone_ids.append(zone)
        slo.budget_us, slo.client_us = group.slo_budget_us, group.client_us
        slo.soft_microcny_per_ms_hour = group.soft_microcny_per_ms_hour
        slo.patience_ms = round(1000 * group.patience_s)
    compute = spec.compute_time
    compute.default_us = group.compute_us
    compute.by_accelerator_model_us.update(group.compute_us_by_model)
    compute.by_arch_us.update(group.compute_us_by_arch)
    for spread in group.spreads:
        spec.spreads.add(topology=spread.topology, max_tasks=spread.max_tasks)
    for apart in group.apart_from:
        spec.apart_from.add(topology=apart.topology, task_group=apart.group)
    if group.mbps:
        spec.zone_traffic.add(zone_id=zone, bandwidth_kbps=round(1000 * group.mbps))
    for near in group.near:
        spec.group_latencies.add(task_group=near.group, budget_us=near.budget_us)
    return spec
