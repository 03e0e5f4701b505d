"""The limits between the tasks of one job, for policies that look at nodes themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mumian.api.v1.job_pb2 import TOPOLOGY_NODE, TOPOLOGY_SITE, JobSpec, TaskGroup, Topology

from mumian_orchestrator.bench.sim.links import Links
from mumian_orchestrator.bench.sim.policies.books import Room

# Tasks of the job that have their place: the group of each, and where that is.
Placed = Sequence[tuple[str, Room]]


def has_limits(spec: JobSpec) -> bool:
    """Whether a task's place depends on those of the job's other tasks."""
    return any(group.spreads or group.apart_from or group.group_latencies for group in spec.task_groups)


def allows(spec: JobSpec, name: str, room: Room, placed: Placed, links: Links) -> bool:
    """Whether a task of the named group may come here, as the others are placed."""
    groups = {group.name: group for group in spec.task_groups}
    own = groups[name]
    return (
        all(_count(spread.topology, [name], room, placed) < spread.max_tasks for spread in own.spreads)
        and all(not _count(topology, [other], room, placed) for topology, other in _apart(groups, name))
        and all(
            _is_near(own, groups[other], room.node.site_id, there.node.site_id, links)
            for other, there in placed
        )
    )


def _count(topology: Topology.ValueType, names: Sequence[str], room: Room, placed: Placed) -> int:
    """Tasks of these groups in the room's domain."""
    here = _domain(topology, room)
    return sum(group in names and _domain(topology, there) == here for group, there in placed)


def _domain(topology: Topology.ValueType, room: Room) -> str:
    if topology == TOPOLOGY_NODE:
        return room.node.id
    return room.node.site_id if topology == TOPOLOGY_SITE else room.site.operator_id


def _apart(groups: Mapping[str, TaskGroup], name: str) -> list[tuple[Topology.ValueType, str]]:
    """The groups that the named one stays away from, whoever of the two says so."""
    said = [(entry.topology, entry.task_group) for entry in groups[name].apart_from]
    of_others = [
        (entry.topology, other.name)
        for other in groups.values()
        for entry in other.apart_from
        if entry.task_group == name
    ]
    return said + of_others


def _is_near(a: TaskGroup, b: TaskGroup, at: str, to: str, links: Links) -> bool:
    network_us = 0 if at == to else max(links[at, to].rtt_p99_us, links[to, at].rtt_p99_us)
    return all(
        network_us + one.compute_time.default_us <= near.budget_us
        for one, other in ((a, b), (b, a))
        for near in one.group_latencies
        if near.task_group == other.name
    )
