"""The limits between the tasks of one job, for policies that look at nodes themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mumian.api.v1.job_pb2 import TOPOLOGY_NODE, TOPOLOGY_SITE, JobSpec, TaskGroup, Topology

from mumian_orchestrator.bench.sim.links import Links
from mumian_orchestrator.bench.sim.policies.books import Room

# Tasks of the job that have their place: the group of each, and where that is.
Placed = Sequence[tuple[str, Room]]
_Counted = tuple[Topology.ValueType, str, int]


def has_limits(spec: JobSpec) -> bool:
    """Whether a task's place depends on those of the job's other tasks."""
    return any(group.spreads or group.apart_from or group.group_latencies for group in spec.task_groups)


class Limits:
    """Whether a task of a group may come to a room, as the job's other tasks are placed."""

    def __init__(self, spec: JobSpec, name: str, placed: Placed, links: Links) -> None:
        groups = {group.name: group for group in spec.task_groups}
        self._own, self._groups, self._placed, self._links = groups[name], groups, placed, links
        # At most so many tasks of these groups in one domain.
        counted = [(spread.topology, name, spread.max_tasks) for spread in self._own.spreads]
        counted += [(topology, other, 1) for topology, other in _apart(groups, name)]
        self._of_nodes = [entry for entry in counted if entry[0] == TOPOLOGY_NODE]
        self._of_sites = [entry for entry in counted if entry[0] != TOPOLOGY_NODE]
        self._sites: dict[str, bool] = {}

    def __call__(self, room: Room) -> bool:
        """Sites are looked at once: they have many nodes."""
        site_id = room.node.site_id
        if site_id not in self._sites:
            self._sites[site_id] = self._site_allows(room)
        return self._sites[site_id] and self._has_room(self._of_nodes, room)

    def _site_allows(self, room: Room) -> bool:
        at = room.node.site_id
        return self._has_room(self._of_sites, room) and all(
            _is_near(self._own, self._groups[other], at, to, self._links)
            for other, to in {(other, there.node.site_id) for other, there in self._placed}
        )

    def _has_room(self, counted: Sequence[_Counted], room: Room) -> bool:
        return all(_count(topology, name, room, self._placed) < most for topology, name, most in counted)


def _count(topology: Topology.ValueType, name: str, room: Room, placed: Placed) -> int:
    """Tasks of a group in the room's domain."""
    here = _domain(topology, room)
    return sum(group == name and _domain(topology, there) == here for group, there in placed)


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
