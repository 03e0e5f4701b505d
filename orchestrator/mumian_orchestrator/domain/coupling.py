"""What a task group may ask of where other tasks are, and of the links to its site."""

from __future__ import annotations

from collections.abc import Iterator

from mumian.api.v1 import job_pb2
from mumian.api.v1.job_pb2 import JobSpec, TaskGroup

from mumian_orchestrator.domain.errors import FieldFault

QUANTITY_MAX = 1 << 40
TOPOLOGIES = {
    job_pb2.TOPOLOGY_NODE: "node",
    job_pb2.TOPOLOGY_SWITCH: "switch",
    job_pb2.TOPOLOGY_RACK: "rack",
    job_pb2.TOPOLOGY_SITE: "site",
    job_pb2.TOPOLOGY_OPERATOR: "operator",
}
_TOPOLOGY_ADVICE = f"use {', '.join(TOPOLOGIES.values())}"


def spread_faults(group: TaskGroup, _: JobSpec) -> Iterator[FieldFault]:
    """What is wrong with `spreads`; here and below, fields are named from the group on."""
    seen = set()
    for number, spread in enumerate(group.spreads):
        field = f"spreads[{number}]"
        if spread.topology not in TOPOLOGIES:
            yield FieldFault(f"{field}.topology", f"({spread.topology}) is no topology; {_TOPOLOGY_ADVICE}")
        elif spread.topology in seen:
            name = TOPOLOGIES[spread.topology]
            yield FieldFault(f"{field}.topology", f"({name}) has a limit already; keep the smaller one")
        seen.add(spread.topology)
        if not spread.max_tasks:
            yield FieldFault(f"{field}.max_tasks", "(0) must be positive; no task could go anywhere")


def apart_faults(group: TaskGroup, spec: JobSpec) -> Iterator[FieldFault]:
    """What is wrong with `apart_from`."""
    names, seen = _names(spec), set()
    for number, apart in enumerate(group.apart_from):
        field = f"apart_from[{number}]"
        if apart.topology not in TOPOLOGIES:
            yield FieldFault(f"{field}.topology", f"({apart.topology}) is no topology; {_TOPOLOGY_ADVICE}")
        if apart.task_group == group.name:
            advice = "is the group itself; use spreads with max_tasks 1"
            yield FieldFault(f"{field}.task_group", f"({group.name!r}) {advice}")
        elif apart.task_group not in names:
            yield _unknown_group(f"{field}.task_group", apart.task_group, names)
        elif apart.task_group in seen:
            advice = "is named already; keep the widest topology, which covers the others"
            yield FieldFault(f"{field}.task_group", f"({apart.task_group!r}) {advice}")
        seen.add(apart.task_group)


def together_faults(group: TaskGroup, _: JobSpec) -> Iterator[FieldFault]:
    """What is wrong with `together`."""
    if group.together not in TOPOLOGIES:
        yield FieldFault("together", f"({group.together}) is no topology; {_TOPOLOGY_ADVICE}")


def latency_faults(group: TaskGroup, spec: JobSpec) -> Iterator[FieldFault]:
    """What is wrong with `group_latencies`."""
    names = _names(spec)
    times = group.compute_time
    by_kind = [*times.by_accelerator_model_us.values(), *times.by_arch_us.values()]
    least_us = min([times.default_us, *by_kind])
    seen = set()
    for number, latency in enumerate(group.group_latencies):
        field = f"group_latencies[{number}]"
        if latency.task_group not in names:
            yield _unknown_group(f"{field}.task_group", latency.task_group, names)
        elif latency.task_group in seen:
            yield FieldFault(
                f"{field}.task_group", f"({latency.task_group!r}) has a budget already; keep one"
            )
        seen.add(latency.task_group)
        if not latency.budget_us:
            yield FieldFault(f"{field}.budget_us", "(0) must be positive; 5000 means 5 ms")
        elif latency.budget_us < least_us:
            yield FieldFault(
                f"{field}.budget_us",
                f"({latency.budget_us}) is less than the group's own compute time ({least_us}); raise it",
            )


def traffic_faults(group: TaskGroup, _: JobSpec) -> Iterator[FieldFault]:
    """What is wrong with `zone_traffic`, but for zones that nobody knows."""
    seen = set()
    for number, traffic in enumerate(group.zone_traffic):
        field = f"zone_traffic[{number}]"
        if traffic.zone_id in seen:
            yield FieldFault(f"{field}.zone_id", f"({traffic.zone_id!r}) is there twice; add the two up")
        seen.add(traffic.zone_id)
        if not traffic.bandwidth_kbps:
            yield FieldFault(f"{field}.bandwidth_kbps", "(0) must be positive; 50000 means 50 Mbit/s")
        elif traffic.bandwidth_kbps > QUANTITY_MAX:
            yield FieldFault(
                f"{field}.bandwidth_kbps", f"({traffic.bandwidth_kbps}) must be at most {QUANTITY_MAX}"
            )


def _names(spec: JobSpec) -> list[str]:
    return [group.name for group in spec.task_groups]


def _unknown_group(field: str, name: str, names: list[str]) -> FieldFault:
    return FieldFault(field, f"({name!r}) is no group of this job; it has {', '.join(names)}")
